"use strict";
// Decide pairs by buttons and keys; save all decisions as one CSV, the earlier lines first and in their order.

const earlier = JSON.parse(document.getElementById("earlier").textContent);
const savedAs = JSON.parse(document.getElementById("saved-as").textContent);
const cards = [...document.querySelectorAll(".pair")];
const pairOf = (a, b) => JSON.stringify([a, b].sort());
const before = new Map(earlier.map(([a, b, verdict]) => [pairOf(a, b), verdict]));
const keyOf = (card) => pairOf(card.dataset.a, card.dataset.b);

// What was decided since the page was made; kept by the browser, so that a reload loses nothing.
const store = `reviewed ${location.pathname} ${earlier.length} ${cards.map(keyOf).join()}`;
let decided = new Map();
try {
  decided = new Map(JSON.parse(localStorage.getItem(store) || "[]"));
} catch {
  // a browser that keeps nothing for files: the page works until it is closed
}

function verdictOf(key) {
  return decided.has(key) ? decided.get(key) : before.get(key) || "";
}

function show() {
  for (const card of cards) {
    const verdict = verdictOf(keyOf(card));
    card.dataset.verdict = verdict;
    for (const button of card.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(verdict !== "" && button.dataset.verdict === verdict));
      if (button.dataset.verdict === "") button.disabled = verdict === "";
    }
  }
  const asked = cards.filter((card) => "asked" in card.dataset);
  document.getElementById("done").textContent = asked.filter((card) => card.dataset.verdict).length;
  document.getElementById("all").textContent = asked.length;
  const changes = [...decided].filter(([key, verdict]) => verdict !== (before.get(key) || "")).length;
  document.getElementById("save").disabled = changes === 0;
  document.getElementById("unsaved").textContent = changes ? `${changes} not in the file yet` : "";
}

function decide(card, verdict) {
  decided.set(keyOf(card), verdict);
  try {
    localStorage.setItem(store, JSON.stringify([...decided]));
  } catch {
    // as above
  }
  show();
}

function cell(text) {
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function csv() {
  const lines = [["image_a", "image_b", "verdict"]];
  const written = new Set();
  for (const [a, b] of earlier) {
    const verdict = verdictOf(pairOf(a, b));
    if (verdict && !written.has(pairOf(a, b))) lines.push([a, b, verdict]);
    written.add(pairOf(a, b));
  }
  for (const card of cards) {
    const verdict = verdictOf(keyOf(card));
    if (verdict && !written.has(keyOf(card))) lines.push([card.dataset.a, card.dataset.b, verdict]);
    written.add(keyOf(card));
  }
  return lines.map((line) => line.map(cell).join(",") + "\n").join("");
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  link.download = savedAs;
  link.click();
  URL.revokeObjectURL(link.href);
}

function move(step) {
  const at = cards.indexOf(document.activeElement.closest(".pair"));
  const next = cards[at < 0 ? 0 : at + step];
  if (!next) return;
  next.focus();
  next.scrollIntoView({ block: "nearest" });
}

for (const card of cards) {
  for (const button of card.querySelectorAll("button")) {
    button.addEventListener("click", () => decide(card, button.dataset.verdict));
  }
}
document.getElementById("save").addEventListener("click", save);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    move(event.key === "ArrowDown" ? 1 : -1);
    return;
  }
  const verdict = { s: "same", p: "same-patient", d: "different", u: "" }[event.key.toLowerCase()];
  const card = document.activeElement.closest(".pair");
  if (verdict === undefined || !card) return;
  decide(card, verdict);
  if (verdict) move(1);
});
show();
