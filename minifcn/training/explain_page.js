// A layer that is pointed at, in the table or on the photograph, is marked in both.
"use strict";

for (const one of document.querySelectorAll("[data-layer]")) {
  const both = [...document.querySelectorAll("[data-layer]")].filter((other) => other.dataset.layer === one.dataset.layer);
  one.addEventListener("pointerenter", () => both.forEach((other) => other.classList.add("chosen")));
  one.addEventListener("pointerleave", () => both.forEach((other) => other.classList.remove("chosen")));
}
