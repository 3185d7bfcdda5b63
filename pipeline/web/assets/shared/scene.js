// What the viewer and the service's page share: NiiVue's settings, planes, colours of labels, and where to look first.

export const $ = (id) => document.getElementById(id);

export function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

export const figure = (value, digits) => (value === null || value === undefined ? "\u2013" : value.toFixed(digits));

export function makeNiivue() {
  return new niivue.Niivue({
    backColor: [0, 0, 0, 1],
    crosshairColor: [1, 1, 1, 0.35],
    crosshairWidth: 0.4,
    crosshairWidthUnit: "percent",
    isRadiologicalConvention: true,
    sagittalNoseLeft: true,
    dragAndDropEnabled: false,
    show3Dcrosshair: true,
    isOrientCube: false,
    loadingText: "",
    multiplanarShowRender: niivue.SHOW_RENDER.NEVER,
  });
}

// Fills a <select> with the ways to look at a volume and makes it work.
export function offerPlanes(nv, select) {
  // Slice type, and whether a 3D picture stands beside the planes: not at first, since without a GPU it is slow.
  const planes = {
    "three planes": [nv.sliceTypeMultiplanar, false],
    "three planes, 3D": [nv.sliceTypeMultiplanar, true],
    axial: [nv.sliceTypeAxial, false],
    coronal: [nv.sliceTypeCoronal, false],
    sagittal: [nv.sliceTypeSagittal, false],
    "3D": [nv.sliceTypeRender, false],
  };
  select.append(...Object.keys(planes).map((name) => element("option", name, { value: name })));
  select.addEventListener("change", () => {
    const [type, beside3D] = planes[select.value];
    nv.opts.multiplanarShowRender = beside3D ? niivue.SHOW_RENDER.ALWAYS : niivue.SHOW_RENDER.NEVER;
    nv.setSliceType(type);
  });
}

// A colour map for labels 1, 2, ...: null is a label that is not shown.
export function labelMap(colours, names) {
  const channel = (c) => [0, ...colours.map((colour) => (colour ? colour[c] : 0))];
  return {
    R: channel(0), G: channel(1), B: channel(2), A: [0, ...colours.map((colour) => (colour ? 255 : 0))],
    I: [0, ...colours.map((_, i) => i + 1)], labels: ["", ...names],
  };
}

export function replaceVolumes(nv, volumes) {
  for (const old of [...nv.volumes].reverse()) nv.removeVolume(old);
  volumes.forEach((volume) => nv.addVolume(volume));
}

export function lookAt(nv, hdr, voxel) {
  const mm = hdr.affine.slice(0, 3).map((row) => row[0] * voxel[0] + row[1] * voxel[1] + row[2] * voxel[2] + row[3]);
  nv.scene.crosshairPos = nv.mm2frac(mm);
  nv.drawScene();
  nv.createOnLocationChange();
}

// Of the slice along the last axis that has most such voxels, the one nearest to their middle; null where there is none.
export function busiest([nx, ny, nz], counts) {
  let best = { n: 0 };
  for (let z = 0; z < nz; z++) {
    let [n, sx, sy] = [0, 0, 0];
    eachOf(z, (x, y) => {
      n++;
      sx += x;
      sy += y;
    });
    if (n > best.n) best = { n, x: sx / n, y: sy / n, z };
  }
  if (best.n === 0) return null;
  let [nearest, least] = [null, Infinity];
  eachOf(best.z, (x, y) => {
    const far = (x - best.x) ** 2 + (y - best.y) ** 2;
    if (far < least) [nearest, least] = [[x, y, best.z], far];
  });
  return nearest;

  function eachOf(z, visit) {
    for (let y = 0, at = z * nx * ny; y < ny; y++) for (let x = 0; x < nx; x++, at++) if (counts(at)) visit(x, y);
  }
}

// One line about the place under the crosshair.
export function placeLine(place, named) {
  const mm = Array.from(place.mm).slice(0, 3).map((value) => value.toFixed(1)).join(", ");
  return ["R A S " + mm + " mm", "intensity " + place.values[0].value.toFixed(1), ...named].join("   \u00b7   ");
}
