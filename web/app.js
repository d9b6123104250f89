// The page's whole behaviour: one image in, the service's answer shown. No dependency.

const $ = (id) => document.getElementById(id);
const percent = (fraction) => `${(100 * fraction).toFixed(1)} %`;

let maxBytes = Infinity;
let current = null; // {original, image, square, whole}: what can be shown of the image that was answered
let pending = null; // AbortController of the request under way

const whole = (sentence) => sentence[0].toUpperCase() + sentence.slice(1) + ".";

function showError(sentence) {
  $("error").textContent = sentence ? whole(sentence) : "";
}

/** What must be known beside the answer, above it. */
function showWarnings(warnings) {
  const items = warnings.map(({ code, sentence }) => {
    const item = document.createElement("li");
    item.dataset.code = code;
    item.textContent = whole(sentence);
    return item;
  });
  $("warnings").replaceChildren(...items);
  $("warnings").hidden = items.length === 0;
}

/** What the file's header states, in words; empty where it states nothing. */
function statedIn(answer) {
  const said = [];
  if (answer.age_years >= 2) said.push(`${Number(answer.age_years.toFixed(1))} years old`);
  else if (answer.age_years !== undefined) said.push(`${Math.round(12 * answer.age_years)} months old`);
  if (answer.burned_in !== undefined) said.push(answer.burned_in ? "letters in the picture" : "no letters in the picture");
  return said.join(", ");
}

function setBusy(busy) {
  document.body.toggleAttribute("data-busy", busy);
  if (busy) $("status").textContent = "Reading the image …";
}

function clearResult() {
  showError("");
  $("result").hidden = true;
  $("controls").hidden = true;
  $("heatmap").hidden = true;
  showWarnings([]);
  $("stated-row").hidden = true;
  $("request-id").firstChild.textContent = "–";
}

/** An object URL of the file where the browser can draw it (not DICOM), else null. */
async function drawable(file) {
  const url = URL.createObjectURL(file);
  const probe = new Image();
  probe.src = url;
  try {
    await probe.decode();
    return url;
  } catch {
    URL.revokeObjectURL(url);
    return null;
  }
}

/**
 * Show the file itself, or the square that the model read. Both lie alike under the heatmap: see style.css. Where the
 * model read a part of the file, only the square does.
 */
function showPicture() {
  const fits = current.original && current.whole;
  const seen = $("seen").checked || !fits;
  $("picture").src = seen ? current.image : current.original;
  $("picture").classList.toggle("stretched", !seen && current.square === "stretch");
  $("seen").disabled = !fits;
  $("seen").checked = seen;
}

function row(name, probability, operatingPoint, predicted) {
  const item = document.createElement("li");
  item.classList.toggle("predicted", name === predicted);
  const title = document.createElement("span");
  title.className = "name";
  title.textContent = name;
  const value = document.createElement("span");
  value.className = "value";
  value.textContent = percent(probability);
  const bar = document.createElement("span");
  bar.className = "bar";
  bar.setAttribute("aria-hidden", "true");
  const fill = document.createElement("span");
  fill.className = "fill";
  fill.style.width = percent(probability).replace(" ", "");
  bar.append(fill);
  item.append(title, value, bar);
  if (operatingPoint !== undefined) {
    const tick = document.createElement("span");
    tick.className = "tick";
    tick.style.left = percent(operatingPoint).replace(" ", "");
    bar.append(tick);
    const note = document.createElement("span");
    note.className = "note quiet";
    const side = probability >= operatingPoint ? "at or above" : "below";
    note.textContent = `${side} its operating point, ${percent(operatingPoint)}`;
    item.append(note);
  }
  return item;
}

function showAnswer(answer, original) {
  current = { original, image: answer.image, square: answer.square, whole: answer.whole };
  $("seen").checked = false;
  showPicture();
  $("heatmap").src = answer.heatmap;
  const localised = Boolean(answer.mask); // of pixels: operating points are theirs, and the bars show shares of the image
  document.body.toggleAttribute("data-mask", localised);
  $("heatmap").alt = localised ? `Mask: ${answer.predicted}` : `Heatmap: evidence for ${answer.predicted}`;
  $("heatmap").hidden = false;
  $("heatmap-class").textContent = answer.predicted;
  $("mask-class").textContent = answer.predicted;
  $("square").hidden = false;
  $("controls").hidden = false;
  $("predicted").textContent = answer.predicted;
  const rows = Object.entries(answer.probabilities).map(([name, probability]) =>
    row(name, probability, localised ? undefined : answer.operating_points[name], answer.predicted),
  );
  $("probabilities").replaceChildren(...rows);
  showWarnings(answer.warnings);
  $("stated").textContent = statedIn(answer);
  $("stated-row").hidden = !$("stated").textContent;
  $("result").hidden = false;
  $("version").firstChild.textContent = answer.model_version;
  $("task").textContent = answer.task;
  $("request-id").firstChild.textContent = answer.request_id;
  const cautions = answer.warnings.map(({ sentence }) => `Warning: ${whole(sentence)} `).join("");
  $("status").textContent = `${cautions}${answer.predicted}, ${percent(answer.probabilities[answer.predicted])}`;
}

/** Post one file. Returns the answer; throws an Error with the sentence to show. */
async function ask(file, signal) {
  if (file.size > maxBytes) {
    throw new Error(`the file is larger than ${Math.floor(maxBytes / 2 ** 20)} MiB; choose a smaller one`);
  }
  const form = new FormData();
  form.append("file", file);
  const response = await fetch("/v1/predict?heatmap=true", { method: "POST", body: form, signal });
  const body = await response.json().catch(() => ({}));
  if (body.request_id) $("request-id").firstChild.textContent = body.request_id;
  if (!response.ok) throw new Error(body.error ?? `the service answered with status ${response.status}`);
  return body;
}

async function submit(file) {
  pending?.abort();
  const request = (pending = new AbortController());
  clearResult();
  setBusy(true);
  $("file-name").textContent = file.name;
  if (current?.original) URL.revokeObjectURL(current.original);
  current = null;
  const original = await drawable(file);
  if (pending !== request) return;
  if (original) {
    $("picture").src = original;
    $("picture").classList.remove("stretched");
  }
  $("square").hidden = !original;
  $("drop").hidden = Boolean(original);
  try {
    const answer = await ask(file, request.signal);
    if (pending !== request) return;
    showAnswer(answer, original);
    $("drop").hidden = true;
  } catch (error) {
    if (pending !== request) return;
    const unreachable = error instanceof TypeError;
    $("square").hidden = true;
    $("drop").hidden = false;
    $("status").textContent = "No result.";
    showError(unreachable ? "the service cannot be reached; check that it is running" : error.message);
  }
  setBusy(false);
}

function takeFirst(files) {
  if (files.length > 1) {
    clearResult();
    showError("one image at a time; the first of several would be a guess");
  } else if (files.length === 1) {
    submit(files[0]);
  }
}

async function describeModel() {
  const response = await fetch("/v1/model");
  if (!response.ok) return;
  const facts = await response.json();
  maxBytes = facts.max_bytes;
  $("task").textContent = facts.task;
  $("version").firstChild.textContent = facts.version;
  $("limits").textContent =
    `One PNG, JPEG or DICOM, up to ${Math.floor(maxBytes / 2 ** 20)} MiB and ${facts.max_megapixels} megapixels. ` +
    "It can be pasted, too.";
}

$("file").addEventListener("change", () => {
  takeFirst($("file").files);
  $("file").value = ""; // so that choosing the same file again asks again
});
$("seen").addEventListener("change", showPicture);
$("opacity").addEventListener("input", () => {
  $("opacity-value").textContent = `${$("opacity").value} %`;
  $("heatmap").style.opacity = $("opacity").value / 100;
});
$("heatmap").style.opacity = $("opacity").value / 100;

let depth = 0; // dragenter and dragleave also fire for every child
document.addEventListener("dragenter", () => document.body.toggleAttribute("data-dragging", ++depth > 0));
document.addEventListener("dragleave", () => document.body.toggleAttribute("data-dragging", --depth > 0));
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  depth = 0;
  document.body.removeAttribute("data-dragging");
  takeFirst(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => takeFirst(event.clipboardData.files));

describeModel().catch(() => showError("the service cannot be reached; check that it is running"));
