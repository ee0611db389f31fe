// Draws the figures of a report and leads from a network's mark to where that network is drawn.
"use strict";
const dark = window.matchMedia("(prefers-color-scheme: dark)");

function lead(fingerprint) {
  const article = document.getElementById(`network-${fingerprint}`);
  if (article === null) return;
  window.location.hash = article.id;
  article.focus();
}

async function draw(source) {
  const place = document.getElementById(source.dataset.figure);
  const options = { actions: false, renderer: "svg", tooltip: { theme: dark.matches ? "dark" : "light" } };
  const { view } = await window.vegaEmbed(place, JSON.parse(source.textContent), options);
  view.addEventListener("click", (_, item) => {
    if (item && item.datum && item.datum.network) lead(item.datum.network);
  });
  place.dataset.drawn = "true";
}

document.querySelectorAll("script[data-figure]").forEach((source) => {
  draw(source).catch((error) => {
    console.error(error);
    document.getElementById(source.dataset.figure).textContent = "This figure could not be drawn.";
  });
});
