"use strict";
// Keys for the buttons, and how long the pictures were in sight. Without this script, the forms work by themselves.
const pictures = [...document.querySelectorAll("figure img")];
const areLoaded = () => pictures.every((picture) => picture.complete && picture.naturalWidth > 0);

const box = document.getElementById("shortcuts");
if (box) {
  box.parentElement.hidden = false;
  box.checked = localStorage.getItem("shortcuts") !== "off";
  box.addEventListener("change", () => localStorage.setItem("shortcuts", box.checked ? "on" : "off"));
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat || (box && !box.checked)) return;
  const target = document.querySelector(`[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
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
