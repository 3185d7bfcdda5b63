// The page to drop a scan on: which of its parts is seen, and the talk with the service.
import { cardElements } from "./card.js";
import { asUpload, filesOf } from "./files.js";
import { sentence, showResult, withSwatch } from "./result.js";
import { $, element } from "./scene.js";

const STATES = ["ask-token", "give", "work", "fault", "result"];
const MIB = 2 ** 20;
const TITLES = {
  0: "The service could not be reached",
  408: "Sending took too long",
  413: "This scan is too large",
  415: "This is no scan that can be read",
  422: "This scan cannot be segmented",
  429: "The service is busy",
  503: "The service cannot do it now",
  507: "The service has no room now",
};

let about = null; // what /model says
let token = ""; // lives in this page alone, and goes into a header, never into an address
let scan = null; // {name, blob}: what was chosen, for trying again
let request = null;
let clock = 0;

function go(state) {
  document.body.dataset.state = state;
  for (const id of STATES) $(id).hidden = id !== state;
  clearInterval(clock);
}

const headers = () => (token ? { Authorization: "Bearer " + latin1(token) } : {});

// Headers hold bytes: a token's are those of UTF-8.
const latin1 = (text) => String.fromCharCode(...new TextEncoder().encode(text));

function fault(status, text, wait = 0) {
  go("fault");
  $("fault-title").textContent = TITLES[status] ?? "It did not work";
  $("fault-text").textContent = sentence(text);
  $("again").hidden = [413, 415, 422].includes(status);
  $("other").classList.toggle("chief", $("again").hidden);
  countDown(wait);
  $($("again").hidden || wait > 0 ? "other" : "again").focus();
}

function countDown(seconds) {
  $("again").disabled = seconds > 0;
  $("again").textContent = seconds > 0 ? `Try again in ${seconds} s` : "Try again";
  if (seconds > 0) clock = setTimeout(() => countDown(seconds - 1), 1000);
}

// The model: what it outlines, what it takes. Without the token there is nothing to know.
async function meet() {
  let answer;
  try {
    answer = await fetch("model", { headers: headers() });
  } catch {
    return fault(0, "check the network, and whether the service still runs");
  }
  if (answer.status === 401) return askToken();
  if (!answer.ok) return fault(answer.status, (await answer.json()).detail);
  about = await answer.json();
  $("model").textContent = "Segment a scan with " + about.name;
  document.title = about.name + " \u2013 segpipe";
  $("version").textContent = `${about.name} ${about.version}, model ${about.digest.slice(0, 12)}.`;
  $("card").replaceChildren(...cardElements(about.card));
  $("structures").replaceChildren(...about.labels.map((label) => withSwatch(element("li", label.name), label)));
  const one = "NIfTI, .mha, .nrrd, or one DICOM series as a folder or zip";
  const several = `one file per channel (${about.channels.join(", ")}), named \u2026_0000, \u2026_0001 or after the channel, or one 4D file`;
  $("kinds").textContent = `${about.channels.length > 1 ? several : one}; at most ${about.upload_mib} MiB`;
  $("unencrypted").hidden = window.isSecureContext;
  $("channel").replaceChildren(...about.channels.map((name, i) => element("option", name, { value: i })));
  $("channel-label").hidden = about.channels.length < 2;
  go("give");
}

function askToken() {
  $("token-fault").textContent = token ? "The service does not know this token." : "";
  go("ask-token");
  $("token").focus();
}

async function take(files) {
  try {
    scan = await asUpload(files, about);
  } catch (error) {
    return fault(error.status ?? 415, error.status ? error.message : "the file cannot be read here; copy it to this computer first");
  }
  if (scan) send();
}

// A request that tells how much of it is sent, which fetch does not.
function send() {
  go("work");
  const started = performance.now();
  let sent = false;
  request = new XMLHttpRequest();
  request.open("POST", "predict?answer=view");
  for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
  request.responseType = "blob";
  phase("Sending the scan", "");
  request.upload.onprogress = (event) => {
    $("progress").max = event.total;
    $("progress").value = event.loaded;
    $("detail").textContent = `${(event.loaded / MIB).toFixed(1)} of ${(event.total / MIB).toFixed(1)} MiB`;
  };
  request.upload.onload = () => {
    sent = true;
    $("progress").removeAttribute("value");
    phase("Segmenting", "");
    queue();
  };
  request.onload = answered;
  request.onerror = () => fault(0, "the connection was lost; check the network, and whether the service still runs");
  request.onabort = () => go("give");
  request.send(scan.blob);
  clock = setInterval(() => {
    const seconds = Math.round((performance.now() - started) / 1000);
    $("elapsed").textContent = `${seconds} s`;
    if (sent && seconds % 2 === 0) queue();
  }, 1000);
}

function phase(title, detail) {
  $("phase").textContent = title;
  $("detail").textContent = detail;
}

// How many scans the service has in hand: this one, and those before and behind it.
async function queue() {
  const mine = request;
  const answer = await fetch("ready").catch(() => null);
  if (answer === null || mine !== request || mine.readyState === XMLHttpRequest.DONE) return;
  const { cases, seconds_per_case: each } = await answer.json();
  const others = Math.max(cases - 1, 0);
  const long = each === null ? "." : `, of about ${each} s each.`;
  if (answer.status === 503) $("detail").textContent = "The service is starting its model.";
  else if (others > 0) $("detail").textContent = `The service has ${others} other scan${others > 1 ? "s" : ""} in hand${long}`;
  else $("detail").textContent = each === null ? "" : `The last scans took about ${each} s.`;
}

async function answered() {
  const answer = new Response(request.response, { headers: { "Content-Type": request.getResponseHeader("Content-Type") ?? "" } });
  if (request.status === 401) return askToken();
  if (request.status !== 200) {
    const { detail } = await answer.json().catch(() => ({ detail: "the answer cannot be read" }));
    return fault(request.status, detail, Number(request.getResponseHeader("Retry-After") ?? 0));
  }
  phase("Drawing", "");
  const parts = await answer.formData().catch(() => null);
  if (parts === null) return fault(0, "the answer was cut off, or is too large for this browser");
  go("result");
  await showResult(about, scan, parts);
  $("result-title").focus();
  document.body.dataset.drawn = "true";
}

const mayTake = () => about !== null && ["give", "fault", "result"].includes(document.body.dataset.state);

function listen() {
  $("ask-token").addEventListener("submit", (event) => {
    event.preventDefault();
    token = $("token").value.trim();
    $("token").value = "";
    meet();
  });
  $("choose").addEventListener("click", () => $("file").click());
  $("choose-folder").addEventListener("click", () => $("folder").click());
  for (const id of ["file", "folder"])
    $(id).addEventListener("change", (event) => {
      take([...event.target.files]);
      event.target.value = "";
    });
  $("cancel").addEventListener("click", () => request.abort());
  $("again").addEventListener("click", () => (scan && about ? send() : meet()));
  for (const id of ["other", "next"]) $(id).addEventListener("click", () => (about ? go("give") : meet()));
  // Anywhere on the page; a file dropped beside the zone must not replace the page.
  for (const name of ["dragenter", "dragover"])
    addEventListener(name, (event) => {
      event.preventDefault();
      document.body.classList.toggle("dragging", mayTake());
    });
  addEventListener("dragleave", (event) => event.relatedTarget === null && document.body.classList.remove("dragging"));
  addEventListener("drop", async (event) => {
    event.preventDefault();
    document.body.classList.remove("dragging");
    if (mayTake()) take(await filesOf([...event.dataTransfer.items].filter((item) => item.kind === "file")));
  });
}

listen();
meet();
