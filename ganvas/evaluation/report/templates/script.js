// The legend shows the latest values; under the pointer, those of the nearest step.
for (const figure of document.querySelectorAll(".chart")) {
  const svg = figure.querySelector("svg"), cursor = figure.querySelector(".cursor");
  const caption = figure.querySelector("figcaption"), cells = [...figure.querySelectorAll(".legend b")];
  const title = caption.textContent, latest = cells.map((cell) => cell.textContent);
  const { x: [low, high, start, end], series } = JSON.parse(figure.dataset.curves);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const at = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    const wanted = low + (at - start) / (end - start) * (high - low);
    const distance = (step) => Math.abs(step - wanted);
    const step = series.flatMap((each) => each.steps).reduce((a, b) => distance(b) < distance(a) ? b : a);
    const place = start + (step - low) / (high - low) * (end - start);
    cursor.setAttribute("x1", place);
    cursor.setAttribute("x2", place);
    cursor.style.visibility = "visible";
    caption.textContent = `${title}, step ${step.toLocaleString("en")}`;
    series.forEach((each, i) => { cells[i].textContent = each.values[each.steps.indexOf(step)] ?? "–"; });
  });
  svg.addEventListener("pointerleave", () => {
    cursor.style.visibility = "hidden";
    caption.textContent = title;
    cells.forEach((cell, i) => { cell.textContent = latest[i]; });
  });
}
