// Strokes are full pixels of one color, without anti-aliasing: the colors of a palette have a meaning each.
(() => {
  let last = null;
  const get = (id) => document.getElementById(id);
  const sheet = (canvas) => {
    const pen = canvas.getContext("2d");
    if (canvas.dataset.ready) return pen;
    pen.fillStyle = canvas.dataset.paper;
    pen.fillRect(0, 0, canvas.width, canvas.height);
    canvas.dataset.ready = "yes";
    return pen;
  };
  const place = (event, canvas) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top].map((v) => Math.floor(v * canvas.width / box.width));
  };
  const stamp = (pen, x, y, radius) => {
    for (let dy = -radius; dy <= radius; dy++) {
      const half = Math.floor(Math.sqrt(radius * radius - dy * dy));
      pen.fillRect(x - half, y + dy, 2 * half + 1, 1);
    }
  };
  const stroke = (event) => {
    const canvas = get("pad"), pen = sheet(canvas), [x, y] = place(event, canvas);
    pen.fillStyle = document.querySelector("#pad-tools [aria-pressed=true]").dataset.ink;
    const steps = Math.max(1, Math.abs(x - last[0]), Math.abs(y - last[1]));
    for (let i = 0; i <= steps; i++) {
      const at = (j, end) => Math.round(last[j] + (end - last[j]) * i / steps);
      stamp(pen, at(0, x), at(1, y), Number(get("pad-size").value));
    }
    last = [x, y];
  };
  window.drawing = () => { sheet(get("pad")); return get("pad").toDataURL("image/png"); };
  document.addEventListener("pointerdown", (event) => {
    if (event.target.id !== "pad" || event.button) return;
    last = place(event, event.target);
    stroke(event);
  });
  document.addEventListener("pointermove", (event) => { if (last) stroke(event); });
  for (const end of ["pointerup", "pointercancel"]) document.addEventListener(end, () => {
    if (last) get("translate-drawing").click();
    last = null;
  });
  document.addEventListener("click", (event) => {
    const brush = event.target.closest("#pad-tools button");
    if (!brush) return;
    if (brush.id === "pad-clear") { delete get("pad").dataset.ready; sheet(get("pad")); return; }
    for (const one of document.querySelectorAll("#pad-tools [data-ink]")) one.ariaPressed = one === brush;
    get("pad-size").value = brush.dataset.size;
  });
  document.addEventListener("input", (event) => {
    if (event.target.id !== "pad-size") return;
    document.querySelector("#pad-tools [aria-pressed=true]").dataset.size = event.target.value;
  });
})();
