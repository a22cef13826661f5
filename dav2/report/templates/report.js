"use strict";
for (const slider of document.querySelectorAll("[data-slider]")) {
  const stage = slider.querySelector(".stage");
  const range = slider.querySelector("input");
  const picture = slider.querySelector("[data-picture]");
  const model = slider.querySelector("[data-model]");
  const under = slider.querySelector(".under");
  const rows = [...document.querySelectorAll(".grid figure[data-row]")];

  // The slider borrows its pictures from the grid below, so that the page holds each of them once.
  const show = () => {
    const row = rows[Number(picture.value)];
    under.src = row.querySelector("img").src;
    let cell = row.nextElementSibling;
    while (cell && cell.querySelector("img").dataset.run !== model.value) cell = cell.nextElementSibling;
    slider.querySelector(".over").src = cell.querySelector("img").src;
  };
  // A tall picture is made narrower, so that it can be seen as a whole.
  const fit = () => stage.style.setProperty("--aspect", under.naturalWidth / under.naturalHeight || 1.4);
  const cut = () => stage.style.setProperty("--cut", range.value + "%");
  under.addEventListener("load", fit);
  range.addEventListener("input", cut);
  picture.addEventListener("change", show);
  model.addEventListener("change", show);
  if (under.complete) fit();
  cut();
}
