"use strict";
// Keys for the buttons, and how long the pictures were in sight. Without this script, the forms work by themselves.
const pictures = [...document.querySelectorAll("figure img")];
const areLoaded = () => pictures.every((picture) => picture.complete && picture.naturalWidth > 0);

const areOn = () => localStorage.getItem("shortcuts") !== "off"; // on every page, not only where the box is
const box = document.getElementById("shortcuts");
if (box) {
  box.parentElement.hidden = false;
  box.checked = areOn();
  box.addEventListener("change", () => localStorage.setItem("shortcuts", box.checked ? "on" : "off"));
}

// What is printed on the key, also where digits need Shift (French) or letters are of another script (Russian, Greek).
const printed = (event) => {
  const key = event.key.toLowerCase();
  const [, row, sign] = /^(Digit|Key)(.)$/.exec(event.code) ?? [];
  const isForeign = row === "Digit" ? !/^[a-z0-9]$/.test(key) : /^\p{L}$/u.test(key) && !/\p{Script=Latin}/u.test(key);
  return sign && isForeign ? sign.toLowerCase() : key;
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat || !areOn()) return;
  const target = document.querySelector(`[data-key="${CSS.escape(printed(event))}"]`);
  if (!target) return;
  event.preventDefault();
  target.click();
});

const SHORTEST_LOOK_MS = 300;
const form = document.getElementById("answers");
if (form) {
  let visible = 0;
  let since = null;
  const missing = document.getElementById("missing");
  const look = () => {
    missing.hidden = !pictures.some((picture) => picture.complete && picture.naturalWidth === 0);
    if (since !== null) visible += performance.now() - since;
    since = document.visibilityState === "visible" && areLoaded() ? performance.now() : null;
  };
  for (const picture of pictures) for (const kind of ["load", "error"]) picture.addEventListener(kind, look);
  document.addEventListener("visibilitychange", look);
  look();
  form.addEventListener("submit", (event) => {
    look();
    // Nobody answers before there is something to see; the second half of a double click was meant for the picture before.
    if (!areLoaded() || visible < SHORTEST_LOOK_MS) event.preventDefault();
    form.elements.visible_ms.value = Math.round(visible);
  });
}
