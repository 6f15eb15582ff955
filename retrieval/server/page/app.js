// The page: what stands in the address is asked of the service and drawn.
import {html, render, useCallback, useEffect, useMemo, useRef, useState, Dialog, Thumbnail, announce, duration, isTyping, plural} from './ui.js';
import {get, post, download} from './api.js';
import {SORTS, format, formatQuery, useAddress} from './state.js';
import {QueryBar, useDropAndPaste, useUploads} from './query.js';
import {Grid, More} from './grid.js';
import {Facets} from './facets.js';
import {remember} from './known.js';
import {Large} from './large.js';
import {DuplicatesView} from './duplicates.js';
import {MarksView} from './marks.js';
import {ModelView} from './model.js';
import {MapView, loadMap, rowsInside} from './map.js';

const PAGE = 60;

/** What the service says of itself, asked again while it encodes and now and then. */
function useInfo(report) {
  const [info, setInfo] = useState(null);
  const refresh = useCallback(async () => setInfo(await get('v1/info')), []);
  const running = !info || info.encoding?.running;
  useEffect(() => {
    let timer;
    const ask = async () => {
      if (!document.hidden) {
        try {
          await refresh();
          report(null, 0);
        } catch (error) {
          report(error);
        }
      }
      timer = setTimeout(ask, running ? 1000 : 5000);
    };
    if (info) timer = setTimeout(ask, running ? 1000 : 5000);
    else ask();
    return () => clearTimeout(timer);
  }, [running, !info]);
  return [info, refresh];
}

/** The results of the state, page after page; the last ones stand until the new ones are there. */
function useSearch(state, generation, report) {
  const asked = JSON.stringify([state.queries, state.filter, state.sort, state.stack, state.rerank, state.lasso]);
  const [answer, setAnswer] = useState(null);
  const [busy, setBusy] = useState(false);
  const [tick, setTick] = useState(0);
  const abort = useRef(new AbortController());
  const latest = useRef(null);
  latest.current = answer;
  const stale = answer && answer.asked === asked && answer.of !== generation;
  const ask = async (offset, {signal}) => {
    const body = {queries: state.queries, filter: state.filter, sort: state.sort,
      stack: state.stack && state.queries.length > 0, k: PAGE, offset};
    if (!state.rerank) body.rerank = false;
    if (state.lasso) body.rows = rowsInside(await loadMap(generation), state.lasso);
    const got = await post('v1/search', body, {signal});
    remember([...got.queries || [], ...got.results]);
    return got;
  };
  const begin = () => {
    abort.current.abort();
    abort.current = new AbortController();
    setBusy(true);
    return abort.current;
  };
  const run = (offset, task) => {
    const mine = begin();
    ask(offset, mine).then((got) => {
      if (mine.signal.aborted) return;
      task(got);
      setBusy(false);
    }, (error) => {
      if (mine.signal.aborted) return;
      setBusy(false);
      // the results of another question are no answer to this one
      if (latest.current?.asked !== asked) setAnswer(null);
      report(error);
    });
  };
  useEffect(() => {
    if (generation === undefined || ['duplicates', 'marks', 'model'].includes(state.view)) return;
    const before = latest.current;
    // pictures that came or went show at once only where nobody is reading further down
    if (before?.asked === asked && before.of !== generation && before.results.length > PAGE && !tick) return;
    run(0, (got) => {
      setAnswer({...got, asked, of: generation});
      if (before?.asked !== asked) {
        announce(got.no_match ? 'No match' : plural(got.total, 'result'));
      }
    });
    setTick(0);
  }, [asked, generation, tick, state.view === 'search']);
  const more = useCallback(() => {
    const now = latest.current;
    if (!now || busy || now.asked !== asked) return;
    run(now.results.length, (got) => {
      const known = new Set(now.results.map((item) => item.row));
      setAnswer({...now, total: got.results.length ? got.total : now.results.length,
        results: [...now.results, ...got.results.filter((item) => !known.has(item.row))]});
    });
  }, [asked, busy]);
  return {answer, busy, more, stale, reload: () => setTick(tick + 1)};
}

function Progress({info}) {
  const {encoding} = info;
  if (!encoding?.running) return null;
  const text = `${encoding.done.toLocaleString('en')} of ${plural(encoding.total, 'picture')} encoded`
    + (encoding.rate ? `, ${encoding.rate < 10 ? encoding.rate.toFixed(1) : Math.round(encoding.rate)} a second` : '')
    + (encoding.seconds_left != null ? `, ${duration(encoding.seconds_left)} left` : '');
  return html`<div class="progress"><div role="progressbar" aria-label="Encoding of the pictures" aria-valuemin="0" aria-valuemax=${encoding.total}
      aria-valuenow=${encoding.done} aria-valuetext=${text}><span style=${{width: `${100 * encoding.done / (encoding.total || 1)}%`}}></span></div>
    <span>${text}. Answers are over those.</span></div>`;
}

/** Why the source cannot be read, and which pictures cannot. */
function Troubles({info}) {
  const {unreadable = [], trouble} = info;
  return html`${trouble && html`<p role="alert" class="problem">${trouble}</p>`}
    ${unreadable.length > 0 && html`<details class="unreadable"><summary>${plural(unreadable.length, 'picture')} cannot be read</summary>
      <ul>${unreadable.map(({name, reason}) => html`<li key=${name}><strong>${name}</strong>: ${reason}</li>`)}</ul></details>`}`;
}

function Stack({item, hasPictures, onOpen, onClose}) {
  return html`<${Dialog} label="Near-identical pictures" onClose=${onClose} className="stack">
    <h2>Near-identical to ${item.name}</h2>
    <ul class="neighbours">${[item.row, ...item.stacked].map((row) => html`<li key=${row}><button aria-label=${`Open picture ${row}`} onClick=${() => onOpen(row)}>
      <${Thumbnail} row=${row} name=${`picture ${row}`} pictured=${hasPictures} /></button></li>`)}</ul>
    <p class="buttons"><button onClick=${onClose}>Close</button></p><//>`;
}

function Help({onClose}) {
  const keys = [['← → ↑ ↓', 'from picture to picture; in the large view to the previous and next'], ['Enter', 'open large'], ['m', 'more like this'],
    ['+  −', 'add to the query as more or less like this'], ['y  n', 'mark as right, as wrong'], ['x', 'select'], ['Ctrl+V', 'search with a pasted picture'],
    ['Shift + drop', 'add to the query instead of a new one'], ['Esc', 'close'], ['?', 'this list']];
  return html`<${Dialog} label="Keys" onClose=${onClose} className="narrow"><h2>Keys</h2>
    <dl class="keys">${keys.map(([key, does]) => html`<div><dt><kbd>${key}</kbd></dt><dd>${does}</dd></div>`)}</dl>
    <p class="buttons"><button class="primary" onClick=${onClose}>Close</button></p><//>`;
}

async function copy(items, say) {
  const text = items.map((item) => item.path ?? item.id).join('\n');
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // a page that came over plain http from another machine has no clipboard of its own
    const area = document.createElement('textarea');
    area.value = text;
    (document.querySelector('dialog[open]') || document.body).append(area);
    area.select();
    document.execCommand('copy');
    area.remove();
  }
  say(`Copied ${plural(items.length, 'path')}`);
}

function App() {
  const [state, change] = useAddress();
  const [problem, setProblem] = useState(null);
  const [said, setSaid] = useState('');
  const report = useCallback((error, status) => setProblem((now) => (error || now?.status === status ? error : now)), []);
  const [info, refresh] = useInfo(report);
  const {answer, busy, more, stale, reload} = useSearch(state, info?.generation, report);
  const [take, waiting] = useUploads(change, report);
  const over = useDropAndPaste(take);
  const [selection, setSelection] = useState(new Map());
  const [marks, setMarks] = useState({});
  const [stack, setStack] = useState(null);
  const [help, setHelp] = useState(false);
  const anchor = useRef(null);
  const items = answer?.results || [];
  const readOnly = !!info?.read_only;
  const [query] = state.queries;
  const canMark = state.queries.length === 1 && query.weight > 0 && !query.text && !readOnly;
  const markOf = (item) => (canMark ? marks[`${formatQuery(query)}>${item.row}`] : undefined);

  useEffect(() => { setProblem(null); }, [format({...state, open: null})]);
  useEffect(() => { if (said) { announce(said); const timer = setTimeout(() => setSaid(''), 4000); return () => clearTimeout(timer); } }, [said]);
  useEffect(() => { if (info) document.title = `${info.name} · retrieval`; }, [info?.name]);
  useEffect(() => {
    const listen = (event) => { if (event.key === '?' && !isTyping(event)) setHelp(true); };
    addEventListener('keydown', listen);
    return () => removeEventListener('keydown', listen);
  }, []);

  const with_ = (item, weight) => ({id: item.id, weight, ...(item.part ? {box: item.part} : {})});
  const mark = (right) => async (item) => {
    const key = `${formatQuery(query)}>${item.row}`;
    const before = marks[key];
    setMarks((now) => ({...now, [key]: right}));
    try {
      await post('v1/feedback', {query, row: item.row, right});
      announce(`${item.name} marked as ${right ? 'right' : 'wrong'}`);
    } catch (error) {
      setMarks((now) => ({...now, [key]: before}));
      report(error);
    }
  };
  const ask = (queries) => { change({view: 'search', queries, open: null}); scrollTo(0, 0); };
  const actions = {
    open: (item) => change({open: item.id}),
    show: (item) => change({open: item.id}, state.open !== null),
    showRow: (row) => get(`v1/items/${row}`).then((item) => { remember([item]); change({open: item.id}); }, report),
    close: () => change({open: null}, true),
    more: (item) => ask([with_(item, 1)]),
    plus: (item) => ask([...state.queries, with_(item, 1)]),
    minus: (item) => ask([...state.queries, with_(item, -1)]),
    right: mark(true),
    wrong: mark(false),
    unstack: setStack,
    copy: (chosen) => copy(chosen, setSaid),
    select: (item, range) => {
      const next = new Map(selection);
      const [from, to] = [anchor.current, item.row].map((row) => items.findIndex((other) => other.row === row));
      if (range && from >= 0 && to >= 0) items.slice(Math.min(from, to), Math.max(from, to) + 1).forEach((other) => next.set(other.row, other));
      else if (next.has(item.row)) next.delete(item.row);
      else next.set(item.row, item);
      anchor.current = item.row;
      setSelection(next);
    },
  };
  const chosen = [...selection.values()];
  const save = (kind) => download('v1/export', {rows: chosen.map((item) => item.row), format: kind}, `pictures.${kind}`).catch(report);
  const restore = () => post('v1/model', {use: 'original'}).then(refresh, report);
  const link = (view, label) => html`<a href=${format({...state, view, open: null})} aria-current=${state.view === view ? 'page' : undefined}>${label}</a>`;

  if (!info) return html`<main>${problem ? html`<p role="alert" class="problem">${problem.message}</p>` : html`<p class="empty">Loading …</p>`}</main>`;
  const empty = answer && !items.length;
  const limited = Object.keys(state.filter).length > 0 || state.lasso;
  return html`
    <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.getElementById('main').focus(); }}>To the results</a>
    <header class="top"><h1>${info.name}</h1>
      <nav aria-label="Views">${link('search', 'Search')}${link('duplicates', 'Duplicates')}${link('map', 'Map')}${link('marks', 'Marks')}${link('model', 'Model')}</nav>
      ${info.projected && html`<span class="trained">Trained on marks <button class="plain" onClick=${restore}>Undo</button></span>`}
      <button class="plain help" onClick=${() => setHelp(true)} aria-label="Keys">?</button></header>
    <${Progress} info=${info} />
    ${problem && html`<p role="alert" class="problem">${problem.message} <button class="plain" aria-label="Dismiss" onClick=${() => setProblem(null)}>×</button></p>`}
    <${Troubles} info=${info} />
    <main id="main" tabindex="-1">
    ${state.view === 'search' && html`
      <${QueryBar} queries=${state.queries} change=${change} take=${take} waiting=${waiting} hasPictures=${info.has_pictures} hasWords=${info.words} />
      <div class="columns">
        <${Facets} facets=${answer?.facets || info.facets || []} all=${info.facets || []} filter=${state.filter} change=${change} />
        <section class="results" aria-label="Results" aria-busy=${busy}>
          <div class="bar">
            <span class="count">${answer ? plural(answer.total, state.queries.length ? 'result' : 'picture') : busy ? 'Searching …' : ''}${answer?.milliseconds != null && state.queries.length > 0 ? ` in ${Math.round(answer.milliseconds)} ms` : ''}</span>
            ${state.lasso && html`<button onClick=${() => change({lasso: null})}>Lasso of the map ×</button>`}
            <label>Sort <select value=${state.sort} onChange=${(event) => change({sort: event.target.value})}>
              ${SORTS.map((name) => html`<option value=${name}>${name === 'score' && !state.queries.length ? 'as they are' : name}</option>`)}</select></label>
            <label title="Near-identical pictures as one"><input type="checkbox" checked=${state.stack} onChange=${(event) => change({stack: event.target.checked})} /> Stack</label>
            ${info.rerank && html`<label title="The configured rerankers, or the plain order"><input type="checkbox" checked=${state.rerank} onChange=${(event) => change({rerank: event.target.checked})} /> Rerank</label>`}
            ${items.length > 0 && html`<button class="plain" onClick=${() => setSelection(new Map(items.map((item) => [item.row, item])))}>Select all shown</button>`}
          </div>
          ${stale && html`<p class="note">Pictures came or went. <button onClick=${reload}>Show them</button></p>`}
          ${answer?.no_match && html`<p class="no-match" role="status"><strong>No match.</strong> Nothing here is probably the same; these are the nearest.</p>`}
          ${empty && html`<p class="empty">${limited ? 'Nothing fits the filter.' : info.encoding?.running ? 'The first pictures are being encoded …' : 'There are no pictures.'}
            ${limited && html` <button onClick=${() => change({filter: {}, lasso: null})}>Clear the filter</button>`}</p>`}
          <${Grid} items=${items} threshold=${answer?.threshold} line=${state.queries.length > 0 && !state.queries.some((one) => one.text) && state.sort === 'score' && !answer?.no_match} actions=${actions} selection=${selection}
            markOf=${markOf} canMark=${canMark} hasPictures=${info.has_pictures} dated=${state.sort === 'date'} />
          ${answer && items.length > 0 && items.length < answer.total && html`<${More} onMore=${more} left=${answer.total - items.length} />`}
        </section>
      </div>`}
    ${state.view === 'duplicates' && html`<${DuplicatesView} hasPictures=${info.has_pictures} threshold=${state.threshold} prove=${state.prove} change=${change} report=${report} generation=${info.generation} onOpen=${actions.showRow} />`}
    ${state.view === 'map' && html`<${MapView} generation=${info.generation} lasso=${state.lasso} colour=${state.colour} parquet=${info.parquet} change=${change} report=${report} hasPictures=${info.has_pictures} onOpen=${actions.showRow} />
      ${state.lasso && html`<${Grid} small items=${items} actions=${actions} selection=${selection} markOf=${markOf} canMark=${canMark} hasPictures=${info.has_pictures} />`}`}
    ${state.view === 'marks' && html`<${MarksView} info=${info} refresh=${refresh} report=${report} readOnly=${readOnly} />`}
    ${state.view === 'model' && html`<${ModelView} info=${info} refresh=${refresh} report=${report} readOnly=${readOnly} show=${(id) => change({open: id})} />`}
    </main>
    <footer><span>${plural(info.images, 'picture')}, ${info.model}, ${info.similarity}${info.calibrated ? ', calibrated' : ''}${readOnly ? ', read-only' : ''}</span>
      <a href="docs">API</a></footer>
    ${chosen.length > 0 && html`<section class="selection" aria-label="Selection"><strong>${chosen.length.toLocaleString('en')} selected</strong>
      <button onClick=${() => save('csv')}>CSV</button><button onClick=${() => save('json')}>JSON</button>
      ${info.has_pictures && html`<button onClick=${() => save('zip')}>ZIP</button>`}
      <button onClick=${() => actions.copy(chosen)}>${chosen.length > 1 ? 'Copy paths' : 'Copy path'}</button>
      <button onClick=${() => ask([...state.queries, ...chosen.map((item) => with_(item, 1))])}>Search with them</button>
      <button onClick=${() => setSelection(new Map())} aria-label="Clear the selection">×</button></section>`}
    ${state.open !== null && html`<${Large} id=${state.open} items=${state.view === 'search' || state.view === 'map' && state.lasso ? items : []} onEnd=${() => answer && items.length < answer.total && more()} actions=${actions} markOf=${markOf} canMark=${canMark}
      hasPictures=${info.has_pictures} generation=${info.generation} report=${report} />`}
    ${stack && html`<${Stack} item=${stack} hasPictures=${info.has_pictures} onOpen=${(row) => { setStack(null); actions.showRow(row); }} onClose=${() => setStack(null)} />`}
    ${help && html`<${Help} onClose=${() => setHelp(false)} />`}
    ${over && html`<div class="drop" aria-hidden="true"><span>Drop pictures to search with them</span></div>`}
    ${said && html`<div class="said">${said}</div>`}
    <div id="announcer" class="hidden" role="status" aria-live="polite"></div>`;
}

render(html`<${App} />`, document.getElementById('app'));
