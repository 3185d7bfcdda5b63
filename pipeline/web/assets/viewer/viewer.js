import { $, busiest, element, figure, labelMap, lookAt, makeNiivue, offerPlanes, placeLine, replaceVolumes } from "./scene.js";

const ROLES = ["reference", "prediction"];
const ROLE_COLOURS = { reference: [55, 200, 245], prediction: [255, 159, 26] };
const STRUCTURE_COLOURS = [
  [55, 200, 245], [255, 159, 26], [122, 220, 120], [240, 110, 170], [250, 225, 80], [170, 140, 255], [255, 110, 90], [80, 225, 190],
  [200, 200, 90], [150, 190, 255],
];

const nv = makeNiivue();

let listing = null;
let current = -1;
let loading = 0; // counts loads, so that a slow one that was overtaken is dropped

const structureColour = (i) => STRUCTURE_COLOURS[i % STRUCTURE_COLOURS.length];

function say(text, bad = false) {
  $("message").textContent = text;
  $("message").hidden = text === "";
  $("message").classList.toggle("bad", bad);
}

// One colour per label: that of the role, or that of the structure.
function labelColours(role) {
  const byRole = $("colours").value === "role";
  const colours = listing.structures.map((_, i) => (byRole ? ROLE_COLOURS[role] : structureColour(i)));
  return labelMap(colours, listing.structures);
}

const shownRoles = () => (listing.cases[current].reference ? ROLES : ["prediction"]);

// Colours, opacities, and which voxels: all, or only those where reference and prediction differ.
function paint() {
  const roles = shownRoles();
  const overlays = roles.map((_, i) => nv.volumes[i + 1]);
  if (overlays.some((volume) => !volume)) return;
  const originals = overlays.map((volume) => (volume.original ??= volume.img));
  const onlyDiffering = $("differences").checked && roles.length === 2;
  overlays.forEach((volume, i) => {
    volume.img = onlyDiffering ? originals[i].map((label, at) => (label === originals[1 - i][at] ? 0 : label)) : originals[i];
    volume.setColormapLabel(labelColours(roles[i]));
    volume.opacity = Number($(roles[i]).value);
  });
  $("scores").classList.toggle("coloured", $("colours").value === "structure");
  nv.updateGLVolume();
}

async function fetched(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(await answer.text());
  return answer.arrayBuffer();
}

async function show(index) {
  if (index < 0 || index >= listing.cases.length) return;
  current = index;
  const mine = ++loading;
  const chosen = listing.cases[index];
  mark(chosen);
  say("reading " + chosen.id + " \u2026");
  const image = "image-" + $("channel").value;
  try {
    const names = [image, ...shownRoles()];
    const buffers = await Promise.all(names.map((name) => fetched(`case/${index}/${name}.nii`)));
    if (mine !== loading) return;
    const volumes = [];
    for (const [i, name] of names.entries()) {
      const options = { name: name + ".nii", colormap: "gray", opacity: 1 };
      const range = listing.channels[$("channel").value].window;
      if (i === 0 && range) [options.cal_min, options.cal_max] = range;
      volumes.push(await niivue.NVImage.loadFromUrl({ url: buffers[i], ...options }));
    }
    if (mine !== loading) return;
    replaceVolumes(nv, volumes);
    paint();
    goToBusiest();
    say("");
    document.body.dataset.shown = chosen.id;
  } catch (error) {
    if (mine === loading) say(error.message, true);
  }
}

// Begin where reference and prediction differ most, or where most is labelled.
function goToBusiest() {
  const { original: first, hdr } = nv.volumes[1];
  const second = (nv.volumes[2] || nv.volumes[1]).original;
  const dims = hdr.dims.slice(1, 4);
  const voxel = busiest(dims, (at) => first[at] !== second[at]) || busiest(dims, (at) => first[at] > 0 || second[at] > 0);
  if (voxel) lookAt(nv, hdr, voxel);
}

function mark(chosen) {
  $("case").textContent = chosen.id;
  document.title = chosen.id + " \u2013 segpipe view";
  for (const button of document.querySelectorAll("#cases button")) {
    const own = Number(button.dataset.index) === current;
    button.setAttribute("aria-current", String(own));
    if (own) button.scrollIntoView({ block: "nearest" });
  }
  $("reference").disabled = $("differences").disabled = !chosen.reference;
  const rows = Object.entries(chosen.scores).map(([structure, s]) => {
    const row = document.createElement("tr");
    const swatch = document.createElement("i");
    swatch.style.background = `rgb(${structureColour(listing.structures.indexOf(structure))})`;
    const head = element("th", structure, { scope: "row" });
    head.prepend(swatch);
    row.append(head);
    for (const [metric, digits] of [["dice", 3], ["nsd", 3], ["hd95_mm", 2], ["volume_ref_ml", 2], ["volume_pred_ml", 2]])
      row.append(element("td", figure(s[metric], digits)));
    return row;
  });
  $("scores").hidden = rows.length === 0;
  document.querySelector("#scores tbody").replaceChildren(...rows);
}

function list() {
  const wanted = $("search").value.trim().toLowerCase();
  const items = listing.cases.flatMap((entry, index) => {
    if (!entry.id.toLowerCase().includes(wanted)) return [];
    const button = element("button", "", { type: "button", "data-index": index, "aria-current": String(index === current) });
    button.append(element("span", entry.id), element("span", figure(entry.dice, 3)));
    if (entry.dice !== null) button.append(element("progress", "", { max: 1, value: entry.dice, "aria-hidden": "true" }));
    button.addEventListener("click", () => show(index));
    const item = document.createElement("li");
    item.append(button);
    return [item];
  });
  $("cases").replaceChildren(...items);
  $("count").textContent = items.length + " of " + listing.cases.length + " cases, lowest mean Dice first";
}

// The next case of those that the search leaves.
function step(by) {
  const shown = [...document.querySelectorAll("#cases button")].map((button) => Number(button.dataset.index));
  const at = shown.indexOf(current);
  const next = shown[at < 0 ? 0 : at + by];
  if (next !== undefined) show(next);
}

nv.onLocationChange = (place) => {
  const labels = place.values.slice(1);
  const nothing = $("differences").checked ? "as the other" : "background";
  const named = shownRoles().map((role, i) => {
    const label = labels[i] ? Math.round(labels[i].value) : 0;
    return role + ": " + (label > 0 ? listing.structures[label - 1] : nothing);
  });
  $("place").textContent = placeLine(place, named);
};

async function start() {
  listing = await (await fetch("cases.json")).json();
  $("run").textContent = listing.run;
  $("channel").append(...listing.channels.map((channel, i) => element("option", channel.name, { value: i })));
  $("channel-label").hidden = listing.channels.length < 2;
  offerPlanes(nv, $("planes"));
  list();
  await nv.attachToCanvas($("canvas"));
  nv.setSliceType(nv.sliceTypeMultiplanar);

  $("search").addEventListener("input", list);
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  for (const id of ["reference", "prediction", "differences", "colours"]) $(id).addEventListener("input", paint);
  $("channel").addEventListener("change", () => show(current));
  document.addEventListener("keydown", (event) => {
    if (event.target.matches("input, select, canvas") || event.ctrlKey || event.metaKey || event.altKey) return;
    const by = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[event.key];
    if (by) {
      event.preventDefault();
      step(by);
    }
  });
  await show(0);
}

start().catch((error) => say("the viewer could not start: " + error.message, true));
