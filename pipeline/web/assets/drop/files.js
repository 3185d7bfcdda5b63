// From what a person drops or chooses to one upload: a file as it is, or several as a zip.
import { zipped } from "./zip.js";

const ENDING = /(\.nii(\.gz)?|\.mha|\.nrrd|\.mgz|\.mgh|\.zip)$/i;
const MIB = 2 ** 20;

// {name, blob}, or null where there is no file in it. The name is for this page alone; within a zip, names say nothing but
// kind and channel. Throws {status, message} for what the service would not take.
export async function asUpload(all, { channels, upload_mib: most }) {
  const files = all.filter((file) => !file.name.startsWith(".") && file.name !== "DICOMDIR");
  if (files.length === 0) return null;
  if (files.reduce((sum, file) => sum + file.size, 0) > most * MIB)
    throw { status: 413, message: `at most ${most} MiB are taken; cut the scan to the part that matters` };
  const known = ENDING.test(files[0].name);
  const name = known ? files[0].name.replace(ENDING, "") : "";
  if (files.length === 1 && known) return { name, blob: files[0] };
  const names = namesInZip(files, channels);
  return { name, blob: await zipped(files.map((file, i) => [names[i], file])) };
}

// Which file is which case's and channel's, without their names: what is left beside the channel, and the folder, tell
// cases apart.
function namesInZip(files, channels) {
  const cases = new Map();
  return files.map((file, i) => {
    const ending = file.name.match(ENDING)?.[0].toLowerCase();
    if (!ending) return `${i}`;
    const stem = file.name.slice(0, file.name.length - ending.length).toLowerCase();
    let number = stem.match(/_(\d{4})$/)?.[1];
    let own = number ? stem.slice(0, -5) : stem;
    const held = channels.length > 1 && !number ? channels.filter((channel) => stem.includes(channel.toLowerCase())) : [];
    if (held.length > 0) {
      const longest = held.reduce((one, other) => (other.length > one.length ? other : one)); // T1C, not T1
      number = String(channels.indexOf(longest)).padStart(4, "0");
      own = stem.replace(longest.toLowerCase(), "");
    }
    const place = JSON.stringify([folderOf.get(file) ?? "", own]);
    if (!cases.has(place)) cases.set(place, cases.size);
    return `case${cases.get(place)}${number ? `_${number}` : ""}${ending}`;
  });
}

// Of files in a dropped folder, where they lay.
const folderOf = new WeakMap();

// All files below what was dropped; folders are read entry by entry, a hundred at a time as browsers give them.
export async function filesOf(items) {
  const roots = items.map((item) => [item.webkitGetAsEntry?.() ?? null, item.getAsFile()]); // gone after this call
  const found = [];
  for (const [entry, file] of roots) {
    if (entry?.isDirectory) await walk(entry, found);
    else if (file) found.push(file);
  }
  return found;
}

async function walk(folder, found) {
  const reader = folder.createReader();
  for (;;) {
    const entries = await new Promise((done, failed) => reader.readEntries(done, failed));
    if (entries.length === 0) return;
    for (const entry of entries) {
      if (entry.isDirectory) await walk(entry, found);
      else {
        const file = await new Promise((done, failed) => entry.file(done, failed));
        folderOf.set(file, folder.fullPath);
        found.push(file);
      }
    }
  }
}
