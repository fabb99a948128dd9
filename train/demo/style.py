"""Style and script of the demo's page, which holds them itself (it opens without a network).

The palette, light and dark, is that of the report too.
"""

from __future__ import annotations

PALETTE = """
:root { --paper:#fbfaf7; --card:#fff; --ink:#1d2227; --soft:#5c656e; --line:#dfe0dc; --mark:#0b6e69;
  --rest:#98a2aa; --track:#eceeea; --right:#17723d; --wrong:#b3261e; --note:#fff4d6;
  --noteline:#d9a400;
  --c0:#0b6e69; --c1:#b4541a; --c2:#6a55b8; }
@media (prefers-color-scheme: dark) { :root { --paper:#14171a; --card:#1d2226; --ink:#e8eaec;
  --soft:#a3adb5; --line:#343b41; --mark:#4cc4bb; --rest:#7d8891; --track:#2b3237; --right:#6cd394;
  --wrong:#ff9a91; --note:#352c12; --noteline:#b98f1d; --c0:#4cc4bb; --c1:#f0a06a; --c2:#b7a6ff; } }
"""

STYLE = (
    PALETTE
    + """
* { box-sizing:border-box; }
body { margin:0; background:var(--paper); color:var(--ink); line-height:1.5;
  font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif; }
main { max-width:1120px; margin:0 auto; padding:2.5rem 1.25rem 4rem; }
h1 { font-size:2.1rem; line-height:1.15; margin:0 0 .5rem; letter-spacing:-.02em; }
h2 { font-size:1.35rem; margin:0 0 .35rem; letter-spacing:-.01em; }
h3 { font-size:1rem; margin:0; }
p { margin:.25rem 0 1rem; max-width:44rem; }
.lead { font-size:1.1rem; color:var(--soft); }
section { margin-top:3rem; }
code { font:.88em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace; }
.note { background:var(--note); border-left:4px solid var(--noteline); padding:.7rem 1rem;
  border-radius:4px; max-width:none; }
table { border-collapse:collapse; }
.scores { width:100%; max-width:46rem; background:var(--card); border:1px solid var(--line);
  border-radius:10px; border-spacing:0; border-collapse:separate; }
.scores caption { text-align:left; color:var(--soft); font-size:.9rem; padding-bottom:.4rem; }
.scores th, .scores td { padding:.7rem 1rem; text-align:left; border-top:1px solid var(--line); }
.scores tr:first-child > * { border-top:0; }
.scores th { font-weight:600; width:16rem; }
.scores small { display:block; font-weight:400; color:var(--soft); }
.scores .number { font-size:1.2rem; font-weight:650; width:5rem; }
.number { font-variant-numeric:tabular-nums; text-align:right; }
.bar { display:block; height:.6rem; background:var(--track); border-radius:.3rem; overflow:hidden; }
.bar i { display:block; height:100%; background:var(--rest); border-radius:.3rem; }
.ours .bar i, .true .bar i { background:var(--mark); }
.ours .number { color:var(--mark); }
.asked { display:grid; grid-template-columns:minmax(0,1fr) minmax(0,1fr); gap:1.25rem;
  align-items:start; }
.shell { min-width:0; padding:1.1rem; border-radius:12px; background:#1b2228; color:#d9dee2;
  border:1px solid var(--line); }
.shell p, pre { margin:0; font:.85rem/1.6 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace; }
.shell p { color:#7fd6cf; overflow-wrap:anywhere; margin-bottom:.5rem; } pre { overflow-x:auto; }
.pairs { display:grid; gap:1.25rem; }
.pair { display:grid; grid-template-columns:1fr 1fr; gap:1.25rem; background:var(--card);
  border:1px solid var(--line); border-radius:12px; padding:1.1rem; }
.asked .clip { background:var(--card); border:1px solid var(--line); border-radius:12px;
  padding:1.1rem; }
.clip { min-width:0; }
video { display:block; width:100%; aspect-ratio:16/10; background:#000; border-radius:8px;
  object-fit:contain; }
.strip { display:block; width:100%; height:auto; margin-top:.5rem; border-radius:4px; }
.facts { color:var(--soft); font-size:.85rem; margin:.35rem 0 .6rem; overflow-wrap:anywhere; }
.question { border-top:1px solid var(--line); padding-top:.6rem; margin-top:.6rem; }
.verdict { margin:.1rem 0 .4rem; font-size:.92rem; color:var(--soft); }
.verdict em { font-style:normal; color:var(--ink); font-weight:600; }
.correct strong { color:var(--right); } .wrong strong { color:var(--wrong); }
.question ul { list-style:none; margin:0; padding:0; }
.question li { display:grid; grid-template-columns:6.5rem 1fr 3rem; gap:.6rem; align-items:center;
  font-size:.92rem; padding:.1rem 0; }
.question li span:first-child { overflow-wrap:anywhere; }
.true span:first-child { font-weight:650; }
.tools { display:flex; flex-wrap:wrap; gap:.75rem; justify-content:space-between;
  margin-bottom:1rem; }
[hidden] { display:none !important; }
.tools div { display:flex; flex-wrap:wrap; gap:.4rem; }
button { font:inherit; font-size:.92rem; color:var(--ink); background:var(--card); cursor:pointer;
  border:1px solid var(--line); border-radius:999px; padding:.4rem .95rem; min-height:2.5rem; }
button[aria-pressed=true] { background:var(--mark); border-color:var(--mark); color:var(--paper); }
:focus-visible { outline:3px solid var(--mark); outline-offset:2px; }
.charts { display:grid; grid-template-columns:1fr 1fr; gap:1.25rem; }
figure { margin:0; background:var(--card); border:1px solid var(--line); border-radius:12px;
  padding:1rem; }
figcaption { color:var(--soft); font-size:.9rem; }
.chart { display:block; width:100%; height:auto; }
.chart text { fill:var(--soft); font-size:13px; } .chart .label { font-weight:600; }
.grid { stroke:var(--line); } .curve { fill:none; stroke-width:2.5; stroke-linejoin:round; }
.curve.c0 { stroke:var(--c0); } .curve.c1 { stroke:var(--c1); } .curve.c2 { stroke:var(--c2); }
.dot.c0, .chart .label.c0 { fill:var(--c0); } .dot.c1, .chart .label.c1 { fill:var(--c1); }
.dot.c2, .chart .label.c2 { fill:var(--c2); }
.curve.c1 { stroke-dasharray:7 4; } .curve.c2 { stroke-dasharray:2 4; }
.steps { padding-left:1.3rem; } .steps li { margin:.35rem 0;
  } .steps code { overflow-wrap:anywhere; }
details { border-top:1px solid var(--line); padding-top:.8rem; } summary { cursor:pointer; }
.wide { overflow-x:auto; } .spec { font-size:.9rem; margin-top:.6rem; }
.spec th, .spec td { text-align:left; padding:.2rem 1.2rem .2rem 0; font-weight:400; }
.spec th { color:var(--soft); }
@media (max-width: 760px) { main { padding-top:1.5rem; } h1 { font-size:1.7rem; }
  .charts { grid-template-columns:1fr; }
  .scores th, .scores td { padding:.6rem .6rem; } .scores th { width:9rem; }
  .scores .number { width:3.5rem; } }
@media (max-width: 620px) { .asked { grid-template-columns:minmax(0,1fr); }
  .pair { grid-template-columns:1fr; gap:2rem; padding:.8rem; } }
@media print { .tools, video { display:none; } .pair { break-inside:avoid; } }
"""
)

SCRIPT = """
const films = [...document.querySelectorAll('.pairs video')];
const tools = document.querySelector('.tools');
tools.hidden = false;
const playing = tools.querySelector('[data-play]');
const seen = new IntersectionObserver(entries => {
  for (const entry of entries) {
    if (playing.getAttribute('aria-pressed') !== 'true') continue;
    if (entry.isIntersecting) entry.target.play(); else entry.target.pause();
  }
});
playing.addEventListener('click', () => {
  const on = playing.getAttribute('aria-pressed') !== 'true';
  playing.setAttribute('aria-pressed', on);
  playing.textContent = on ? 'pause all' : 'play all';
  for (const film of films) {
    seen.unobserve(film);
    if (on) seen.observe(film); else film.pause();
  }
});
for (const button of tools.querySelectorAll('[data-filter]')) {
  button.addEventListener('click', () => {
    const scene = button.dataset.filter;
    for (const other of tools.querySelectorAll('[data-filter]'))
      other.setAttribute('aria-pressed', other === button);
    for (const pair of document.querySelectorAll('.pair'))
      pair.hidden = scene !== '' && pair.dataset.scene !== scene;
  });
}
"""
