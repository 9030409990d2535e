#include "recipe/report_style.h"

namespace salient {

// Colours after Okabe and Ito, which colour-blind readers tell apart, darkened on white where they would be
// faint; every series has a shape of its own as well.
const std::string_view kReportStyle = R"css(
:root {
  color-scheme: light dark;
  --page: #ffffff; --panel: #f6f7f9; --text: #1c2126; --soft: #59636e; --edge: #d9dee4; --bad: #b3261e;
  --bad-page: #fdecea; --warn: #8a5a00; --warn-page: #fff6e0;
  --k0: #0072b2; --k1: #d55e00; --k2: #008a65; --k3: #c77f00; --k4: #b5508a; --k5: #3d9ad1; --k6: #4d5156;
  --t0: #a6c8e4; --t1: #4a90c8; --t2: #0b4f8a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171a; --panel: #1d2125; --text: #e4e8ec; --soft: #9aa5b1; --edge: #363d45; --bad: #ff8a80;
    --bad-page: #3a1d1b; --warn: #ffcf70; --warn-page: #352a12;
    --k0: #4aa8e8; --k1: #ff8a3d; --k2: #2fc89b; --k3: #f0b429; --k4: #e58fc0; --k5: #8fd3ff; --k6: #c3c9d0;
    --t0: #35597a; --t1: #4a97d6; --t2: #b5dcff;
  }
}
.s0 { --c: var(--k0) } .s1 { --c: var(--k1) } .s2 { --c: var(--k2) } .s3 { --c: var(--k3) }
.s4 { --c: var(--k4) } .s5 { --c: var(--k5) } .s6 { --c: var(--k6) }
.t0 { --c: var(--t0) } .t1 { --c: var(--t1) } .t2 { --c: var(--t2) }
* { box-sizing: border-box }
body {
  margin: 0 auto; max-width: 1240px; padding: 28px 24px 64px; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere }
h2 { font-size: 19px; margin: 44px 0 4px }
p { margin: 6px 0; max-width: 78ch }
.soft { color: var(--soft) }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); gap: 12px; margin: 20px 0 }
.tile { background: var(--panel); border: 1px solid var(--edge); border-radius: 8px; padding: 10px 14px; margin: 0 }
.tile dt { color: var(--soft); font-size: 13px }
.tile dd { margin: 0; font-size: 20px; font-weight: 600; font-variant-numeric: tabular-nums; overflow-wrap: anywhere }
.tile dd small { display: block; color: var(--soft); font-size: 12.5px; font-weight: 400 }
.note { border-left: 4px solid; border-radius: 4px; padding: 8px 14px; margin: 14px 0; overflow-wrap: anywhere }
.note ul { margin: 4px 0; padding-left: 20px }
.failures { color: var(--bad); background: var(--bad-page) }
.warnings { color: var(--warn); background: var(--warn-page) }
.plot { overflow-x: auto }
.plot svg { display: block; width: 100%; height: auto; min-width: 420px }
.wide svg { min-width: 720px }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); gap: 18px 24px }
.panels > * { min-width: 0; max-width: 620px }
figure { margin: 10px 0 0 }
figcaption { font-size: 13.5px; font-weight: 600; overflow-wrap: anywhere }
.legend { display: flex; flex-wrap: wrap; gap: 4px 20px; max-width: none; margin: 10px 0 }
.key { display: inline-flex; align-items: center; gap: 7px; font-size: 13.5px }
.icon { width: 30px; height: 18px; flex: none }
.swatch { width: 13px; height: 13px; border-radius: 2px; background: var(--c) }
svg text { fill: var(--soft); font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif }
svg .value { fill: var(--text); font-size: 11px; font-variant-numeric: tabular-nums }
.grid, .axis, .rule { fill: none; stroke: var(--edge); stroke-width: 1 }
.axis { stroke: var(--soft) }
.rule { stroke: var(--soft); stroke-dasharray: 5 4 }
.line { fill: none; stroke: var(--c); stroke-width: 1.8; stroke-linejoin: round }
.line.d1 { stroke-dasharray: 7 4 } .line.d2 { stroke-dasharray: 2 3 }
.m { fill: var(--c); stroke: var(--page); stroke-width: .8 }
.m.hollow { fill: var(--page); stroke: var(--c); stroke-width: 1.6 }
.m.cross { fill: none; stroke: var(--soft); stroke-width: 1.8 }
.m:hover, .bar:hover { stroke: var(--text); stroke-width: 2 }
.bar { fill: var(--c) }
.box path { stroke: var(--c); fill: none }
.box rect { fill: var(--c); fill-opacity: .45; stroke: var(--c); stroke-width: .8 }
.box .reach { stroke-opacity: .45; stroke-width: 1; stroke-dasharray: 1.5 1.5 }
.box .whisker { stroke-width: 1.4 }
.box .median { stroke: var(--text); stroke-width: 1.8 }
.box:hover rect { fill-opacity: .8 }
.scroll { overflow: auto; max-height: 560px; margin: 12px 0; border: 1px solid var(--edge); border-radius: 6px }
table { border-collapse: collapse; width: 100%; font-size: 12.5px; font-variant-numeric: tabular-nums }
th, td { padding: 4px 8px; text-align: right; white-space: nowrap }
th { position: sticky; top: 0; background: var(--panel); border-bottom: 1px solid var(--edge); font-weight: 600 }
tbody tr:nth-child(even) { background: var(--panel) }
tbody tr:hover { background: var(--edge) }
.text { text-align: left }
.bad { color: var(--bad) }
td.bad { font-weight: 600 }
td.text.bad { white-space: normal; min-width: 30ch }
/* Five numbers that would make the table wider than most windows, and the reader scroll for them. */
td.channels { white-space: normal; min-width: 17ch }
.none { color: var(--soft) }
th button { all: unset; cursor: pointer; display: block; width: 100% }
th button:hover, th button:focus-visible { text-decoration: underline }
th[aria-sort] button::after { content: " ▲"; font-size: 10px }
th[aria-sort=descending] button::after { content: " ▼" }
input[type=search] {
  font: inherit; font-size: 13.5px; padding: 5px 10px; width: min(360px, 100%); margin-top: 8px; color: inherit;
  background: var(--page); border: 1px solid var(--edge); border-radius: 6px;
}
footer { margin-top: 48px; color: var(--soft); font-size: 13px }
@media print {
  .scroll { max-height: none; overflow: visible }
  input[type=search] { display: none }
}
)css";

const std::string_view kReportScript = R"js(
(function () {
  'use strict';
  function valueOf(row, column, numeric) {
    var cell = row.cells[column];
    if (cell.dataset.value !== undefined) return parseFloat(cell.dataset.value);
    return numeric ? parseFloat(cell.textContent) : cell.textContent;
  }
  function sort(table, head, down) {
    var column = head.cellIndex;
    var numeric = !head.classList.contains('text');
    var body = table.tBodies[0];
    var rows = Array.from(body.rows).map(function (row) { return [valueOf(row, column, numeric), row]; });
    rows.sort(function (a, b) {
      var order = typeof a[0] === 'number' ? (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0)
                                           : a[0].localeCompare(b[0], undefined, {numeric: true});
      return down ? -order : order;
    });
    body.append.apply(body, rows.map(function (pair) { return pair[1]; }));
    table.querySelectorAll('th').forEach(function (other) { other.removeAttribute('aria-sort'); });
    head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
  }
  function addButtons(table) {
    table.querySelectorAll('th').forEach(function (head) {
      var button = document.createElement('button');
      button.type = 'button';
      button.append(head.textContent);
      head.replaceChildren(button);
      button.addEventListener('click', function () {
        var before = head.getAttribute('aria-sort');
        sort(table, head, before ? before === 'ascending' : !head.classList.contains('text'));
      });
    });
  }
  function addFilter(table) {
    var input = document.createElement('input');
    input.type = 'search';
    input.placeholder = 'show rows that contain ...';
    input.setAttribute('aria-label', 'Rows to show');
    input.addEventListener('input', function () {
      var wanted = input.value.toLowerCase();
      Array.from(table.tBodies[0].rows).forEach(function (row) {
        row.hidden = !row.textContent.toLowerCase().includes(wanted);
      });
    });
    table.parentNode.before(input);
  }
  document.querySelectorAll('table').forEach(function (table) {
    addButtons(table);
    if (table.rows.length > 12) addFilter(table);
  });
  // report.html#sort=loss, or #sort=-loss for the largest first: the linears in that order.
  function sortByAddress() {
    var wanted = /^#sort=(-?)(\w+)$/.exec(location.hash);
    var head = wanted && document.querySelector('#linears th[data-key="' + wanted[2] + '"]');
    if (head) sort(document.getElementById('linears'), head, wanted[1] === '-');
  }
  window.addEventListener('hashchange', sortByAddress);
  sortByAddress();
})();
)js";

}  // namespace salient
