"use strict";
// Draws the figures of the JSON block "figures"; colours are roles that follow the page's theme.
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const phone = window.matchMedia("(max-width: 44rem)");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const drawn = [];

  const paint = (value, style) => {
    if (typeof value === "string" && value.startsWith("@")) {
      return style.getPropertyValue("--" + value.slice(1)).trim() || value;
    }
    if (Array.isArray(value)) return value.map((item) => paint(item, style));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, paint(v, style)]));
    }
    return value;
  };

  const axis = (given) => {
    const title = given && given.title ? { ...given.title, standoff: 12, font: { size: 13 } } : undefined;
    return {
      gridcolor: "@line", linecolor: "@line", zeroline: false, ticks: "", automargin: true,
      ...given, title, fixedrange: phone.matches,
    };
  };

  const draw = (entry) => {
    const { chart, views } = entry;
    const style = getComputedStyle(document.documentElement);
    const { data, layout } = views[entry.view].spec;
    const columns = Number(chart.dataset.columns || 0);
    const wide = columns * 26 + 140;
    chart.style.minWidth = columns && wide > chart.parentElement.clientWidth ? wide + "px" : "";
    const whole = {
      height: phone.matches ? 360 : 460,
      margin: { l: 56, r: 12, t: layout.legend ? 44 : 10, b: 52 },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: "@muted" },
      hoverlabel: { bgcolor: "@raised", bordercolor: "@line", font: { color: "@ink" }, align: "left" },
      ...layout,
      xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis),
    };
    const config = { displaylogo: false, responsive: true, displayModeBar: false, doubleClick: "reset+autosize" };
    Plotly.react(chart, paint(data, style), paint(whole, style), config);
  };

  for (const chart of document.querySelectorAll("[data-figure]")) {
    const views = figures[chart.dataset.figure];
    if (!views) continue;
    const entry = { chart, views, view: 0 };
    drawn.push(entry);
    const buttons = chart.closest("figure").querySelectorAll("[data-view]");
    for (const button of buttons) {
      button.addEventListener("click", () => {
        entry.view = Number(button.dataset.view);
        for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
        draw(entry);
      });
    }
    draw(entry);
  }

  const again = () => drawn.forEach(draw);
  dark.addEventListener("change", again);
  phone.addEventListener("change", again);
})();
