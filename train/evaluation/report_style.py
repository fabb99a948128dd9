"""Style of the evaluation's page, which holds it itself (it opens without a network).

No text is smaller than 14 px; what is wide scrolls in a box of its own, never the page.
"""

from __future__ import annotations

from framebank.train.demo.style import PALETTE

STYLE = (
    PALETTE
    + """
* { box-sizing:border-box; }
body { margin:0; background:var(--paper); color:var(--ink); overflow-wrap:anywhere;
  font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif; }
main { max-width:1120px; margin:0 auto; padding:2.5rem 1.25rem 4rem; }
h1 { font-size:2.1rem; line-height:1.15; margin:.15rem 0 .6rem; letter-spacing:-.02em; }
h2 { font-size:1.35rem; margin:0 0 .35rem; letter-spacing:-.01em; }
h3 { font-size:1.05rem; line-height:1.35; margin:0; }
p { margin:.25rem 0 1rem; max-width:46rem; }
section { margin-top:3rem; } figure > p:last-child { margin-bottom:0; }
small, .soft { font-size:.9rem; color:var(--soft); }
.kicker { margin:0; color:var(--mark); font-weight:650; letter-spacing:.02em; }
.verdict { font-size:1.2rem; line-height:1.4; max-width:48rem; }
.note { background:var(--note); border-left:4px solid var(--noteline); padding:.7rem 1rem;
  border-radius:4px; max-width:none; }
.card, figure, .scores { background:var(--card); border:1px solid var(--line);
  border-radius:12px; }
.card, figure { margin:0; padding:1.1rem; min-width:0; }
.number { font-variant-numeric:tabular-nums; text-align:right; white-space:nowrap; }

.scores { width:100%; border-spacing:0; border-collapse:separate; }
.scores th, .scores td { padding:.75rem 1rem; text-align:left; border-top:1px solid var(--line); }
.scores tr:first-child > * { border-top:0; }
.scores th { font-weight:600; width:21rem; }
.scores small { display:block; font-weight:400; white-space:normal; }
.scores .number { width:10.5rem; text-align:right; }
.bars small { padding-top:.35rem; } .scores .number b { font-size:1.25rem; font-weight:650; }
.ours .number b, .ours th { color:var(--mark); }
.ours .number b { font-size:1.6rem; }
.bar { position:relative; display:block; height:.8rem; border-radius:.4rem;
  background:var(--track); }
.bar i { display:block; height:100%; background:var(--rest); border-radius:.4rem; min-width:2px; }
.bar b { position:absolute; top:50%; height:2px; margin-top:-1px; background:var(--ink); }
.bar b::before, .bar b::after { content:""; position:absolute; top:-4px; width:2px; height:10px;
  background:var(--ink); } .bar b::after { right:0; }
.ours .bar i, .truth .bar i { background:var(--mark); }

.tiles { display:grid; gap:1rem; margin:1rem 0 0;
  grid-template-columns:repeat(auto-fit,minmax(min(100%,13rem),1fr)); }
.tiles dt { font-size:.9rem; color:var(--soft); }
.tiles dd { margin:0; } .tiles b { display:block; font-size:1.5rem; font-weight:650; }
.grid { display:grid; gap:1.25rem;
  grid-template-columns:repeat(auto-fit,minmax(min(100%,19.5rem),1fr)); align-items:start; }
.scroll { overflow-x:auto; }
.figures { width:100%; border-collapse:collapse; font-size:.95rem; margin-top:.4rem; }
.figures th, .figures td { padding:.4rem .5rem .4rem 0; border-top:1px solid var(--line);
  text-align:left; font-weight:400; vertical-align:top; }
.figures tr > :last-child { padding-right:0; }
.figures thead th { color:var(--soft); border-top:0; font-size:.9rem; }
.figures .number { text-align:right; } .figures small { display:block; }
.confusion { border-spacing:3px; font-size:.95rem; overflow-wrap:normal; }
.confusion th, .confusion td { padding:.4rem .6rem; font-weight:400; }
.confusion thead th { vertical-align:bottom; color:var(--soft); min-width:3.6rem; }
.confusion tbody th { text-align:right; position:sticky; left:0; background:var(--card); }
.confusion td { text-align:right; font-variant-numeric:tabular-nums; border-radius:4px; }
.confusion .hit { outline:2px solid var(--mark); } .confusion .none { color:var(--soft); }

.chart { display:block; width:100%; max-width:27rem; height:auto; margin:.4rem auto; }
.chart text { fill:var(--soft); font-size:15px; } .chart .gridline { stroke:var(--line); }
.chart .diagonal { stroke:var(--soft); stroke-dasharray:4 4; } .chart .gap { stroke:var(--c1); }
.curve { fill:none; stroke-width:2.5; stroke-linejoin:round; }
.c0 { stroke:var(--c0); } .c1 { stroke:var(--c1); stroke-dasharray:7 4; }
.c2 { stroke:var(--c2); stroke-dasharray:2 4; }
circle.c0 { fill:var(--c0); } circle.c1 { fill:var(--c1); } circle.c2 { fill:var(--c2); }
.spot { fill:var(--c0); fill-opacity:.8; stroke:var(--card); }
.legend { display:flex; flex-wrap:wrap; gap:.1rem 1.1rem; margin:0; padding:0; list-style:none;
  font-size:.9rem; } .legend svg { width:26px; height:10px; margin-right:.4rem; }

.cases { display:grid; gap:1.25rem;
  grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr)); align-items:start; }
.frames { display:grid; grid-template-columns:repeat(4,1fr); gap:4px; margin:0; }
.frames img { display:block; width:100%; height:auto; border-radius:4px; background:var(--track); }
.gone { background:var(--track); border-radius:6px; padding:1.4rem 1rem; margin:0;
  text-align:center; max-width:none; }
.cases h3, .cases b, .cases span, th { unicode-bidi:isolate; } abbr { text-decoration:none; }
.case .soft { margin:.5rem 0; } .case p { margin-bottom:.5rem; }
.right strong { color:var(--right); } .wrong strong { color:var(--wrong); }
.answers { list-style:none; margin:0; padding:0; }
.answers li { display:grid; grid-template-columns:minmax(0,7.5rem) minmax(0,1fr) 3.2rem; gap:.6rem;
  align-items:center; font-size:.95rem; padding:.12rem 0; }
.truth span:first-child { font-weight:650; } .truth span:first-child::after { content:" ✓"; }
ul.plain { padding-left:1.2rem; } ul.plain li { margin:.2rem 0; }
summary { cursor:pointer; padding:.3rem 0; } code { font-size:.95em; }
@media (max-width: 620px) { main { padding:1.5rem 1rem 3rem; } h1 { font-size:1.7rem; }
  .verdict { font-size:1.1rem; } section { margin-top:2.4rem; } figure, .card { padding:.9rem; }
  .scores, .scores tbody { display:block; }
  .scores tr { display:grid; grid-template-columns:minmax(0,1fr) auto; padding:.7rem .9rem;
    gap:.35rem .8rem; border-top:1px solid var(--line); } .scores tr:first-child { border-top:0; }
  .scores th, .scores td { display:block; padding:0; border:0; width:auto; }
  .scores .number { width:auto; } .scores .bars { grid-column:1 / -1; grid-row:2; } }
@media print { figure, .card, tr { break-inside:avoid; } details > * { display:block; } }
"""
)
