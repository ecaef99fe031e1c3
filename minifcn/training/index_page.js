// A slider fades the classes over the photograph, the pointer reads the class of a pixel, and a click says how to ask why.
"use strict";

const names = new Map();
for (const entry of document.querySelectorAll("[data-colour]")) names.set(entry.dataset.colour, entry.textContent);

for (const look of document.querySelectorAll(".look")) {
  const [stack, said, slider] = [".stack", "output", "input"].map((part) => look.querySelector(part));
  const mask = stack.querySelector(".mask");
  slider.addEventListener("input", () => { mask.style.opacity = slider.value / 100; });
  let pixels = null;
  const read = () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [mask.naturalWidth, mask.naturalHeight];
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(mask, 0, 0);
    return context;
  };
  const place = (event) => {
    const box = stack.getBoundingClientRect();
    const part = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    return part.map((value) => Math.min(Math.max(value, 0), 0.999999));
  };
  stack.addEventListener("pointermove", (event) => {
    pixels ??= read();
    const [x, y] = place(event);
    const at = [Math.floor(x * mask.naturalWidth), Math.floor(y * mask.naturalHeight)];
    said.textContent = names.get([...pixels.getImageData(...at, 1, 1).data.slice(0, 3)].join(",")) ?? "void";
  });
  stack.addEventListener("click", (event) => {
    const [x, y] = place(event);
    const at = [Math.floor(x * stack.dataset.width), Math.floor(y * stack.dataset.height)];
    said.textContent = `why? minifcn predict ${stack.dataset.words} --explain ${at}`;
  });
}
