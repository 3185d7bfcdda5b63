// The result of a case: names, volumes and files to keep; and the scan with its segmentation, where the browser can draw it.
import { $, busiest, element, labelMap, lookAt, makeNiivue, offerPlanes, placeLine, replaceVolumes } from "./scene.js";

let nv = null; // made with the first result
let shown = null; // {about: what /model says, scan: {name}, found: volumes and remarks, parts: files}

export async function showResult(about, scan, parts) {
  shown = { about, scan, found: JSON.parse(parts.get("result")), parts };
  document.body.classList.remove("unseen");
  list();
  await draw();
}

export const sentence = (text) => (text ? text[0].toUpperCase() + text.slice(1) + (/[.?!]$/.test(text) ? "" : ".") : "");

export function withSwatch(parent, label) {
  const swatch = element("i", "", { class: "swatch" });
  swatch.style.background = `rgb(${label.color})`;
  parent.prepend(swatch);
  return parent;
}

// Names, volumes and files; there also where no picture can be drawn.
function list() {
  const { about, scan, found, parts } = shown;
  $("scan-name").textContent = scan.name;
  $("remark").textContent = found.warning ? "This scan is unlike those that the model was trained on: " + found.warning + "." : "";
  $("remark").hidden = !found.warning;
  $("rows").replaceChildren(...about.labels.map((label, i) => row(label, i, found.volumes_ml[label.name])));
  $("all").checked = true;
  offer("download", parts.get("segmentation"));
  offer("download-seg", parts.get("dicom-seg"));
  $("no-dicom-seg").textContent = sentence(found.no_dicom_seg ?? "");
  $("no-dicom-seg").hidden = !found.no_dicom_seg;
}

function row(label, i, ml) {
  const made = document.createElement("tr");
  const head = element("th", "", { scope: "row" });
  const chosen = element("input", "", { type: "checkbox", checked: "", "data-label": i });
  const named = element("label", label.name);
  withSwatch(named, label);
  named.prepend(chosen);
  chosen.addEventListener("input", paint);
  head.append(named);
  made.append(head, element("td", volume(ml), { class: "number" }));
  return made;
}

function volume(ml) {
  if (ml === 0) return "none found";
  return ml >= 10 ? ml.toFixed(1) : ml >= 0.1 ? ml.toFixed(2) : ml.toPrecision(2);
}

// A link to a file of the answer, named after the scan, whose name this page alone knows.
function offer(id, file) {
  const link = $(id);
  if (link.href) URL.revokeObjectURL(link.href);
  link.hidden = !file;
  link.removeAttribute("href");
  if (!file) return;
  link.href = URL.createObjectURL(file);
  link.download = shown.scan.name ? `${shown.scan.name}_${file.name}` : file.name;
}

async function draw() {
  let why = "";
  if (!document.createElement("canvas").getContext("webgl2")) why = "This browser cannot draw the scan: WebGL 2 is off or missing.";
  else {
    try {
      if (nv === null) await open();
      await fill();
    } catch (error) {
      why = `The scan cannot be drawn here (${error.message}).`;
    }
  }
  $("no-picture").textContent = why + " The volumes and the segmentation are complete.";
  $("no-picture").hidden = why === "";
  document.body.classList.toggle("unseen", why !== "");
}

async function open() {
  nv = makeNiivue();
  nv.onLocationChange = (place) => {
    const under = place.values[1] ? Math.round(place.values[1].value) : 0;
    $("place").textContent = placeLine(place, [namesOf(under).join(", ") || "background"]);
  };
  await nv.attachToCanvas($("canvas"));
  offerPlanes(nv, $("planes"));
  nv.setSliceType(nv.sliceTypeMultiplanar);
  $("opacity").addEventListener("input", paint);
  $("channel").addEventListener("change", fill);
}

// The chosen channel with the segmentation on it.
async function fill() {
  const channel = $("channel").value;
  const range = shown.about.windows[channel];
  const options = { colormap: "gray", opacity: 1, ...(range ? { cal_min: range[0], cal_max: range[1] } : {}) };
  const scanned = await volumeOf(`scan-${channel}`, options);
  const overlay = await volumeOf("overlay", { colormap: "gray", opacity: 1 });
  replaceVolumes(nv, [scanned, overlay]);
  paint();
  const voxel = busiest(overlay.hdr.dims.slice(1, 4), (at) => overlay.img[at] > 0);
  if (voxel) lookAt(nv, overlay.hdr, voxel);
}

async function volumeOf(part, options) {
  const buffer = await shown.parts.get(part).arrayBuffer();
  return niivue.NVImage.loadFromUrl({ url: buffer, name: part + ".nii.gz", ...options });
}

// The overlay numbers every label value; structures may share values, and then the innermost one that is shown gives the
// colour: the one with the fewest values.
const values = () => [...new Set(shown.about.labels.flatMap((label) => label.values))].sort((a, b) => a - b);

const namesOf = (number) => shown.about.labels.filter((label) => label.values.includes(values()[number - 1])).map((label) => label.name);

function paint() {
  const boxes = [...document.querySelectorAll("#rows input")];
  $("all").checked = boxes.every((box) => box.checked);
  $("all").indeterminate = !$("all").checked && boxes.some((box) => box.checked);
  const overlay = nv?.volumes[1];
  if (!overlay) return;
  const chosen = shown.about.labels.filter((_, i) => boxes[i].checked);
  const numbered = values();
  const inwards = chosen.toSorted((one, other) => one.values.length - other.values.length);
  const colours = numbered.map((value) => inwards.find((label) => label.values.includes(value))?.color ?? null);
  overlay.setColormapLabel(labelMap(colours, numbered.map((_, i) => namesOf(i + 1).join(", "))));
  overlay.opacity = Number($("opacity").value);
  nv.updateGLVolume();
}

$("all").addEventListener("input", (event) => {
  for (const box of document.querySelectorAll("#rows input")) box.checked = event.target.checked;
  paint();
});
