// What the page shows stands in the fragment of its address, so that back, reload and a sent link work.
//   #q=r12*1@0.1,0.2,0.5,0.5;u3fa…*-0.5 & f.label=cat & f.date=2020..2021 & sort=date & open=7
import {useState, useEffect, useCallback} from './ui.js';

const DEFAULTS = {view: 'search', queries: [], filter: {}, sort: 'score', stack: true, open: null, lasso: null, threshold: 0.95};
export const SORTS = ['score', 'date', 'folder'];
const VIEWS = ['search', 'duplicates', 'map', 'marks'];

function parseQuery(text) {
  const parts = /^([ru])([^*@]+)(?:\*(-?[\d.]+))?(?:@([\d.,]+))?$/.exec(text);
  if (!parts) return null;
  const query = parts[1] === 'r' ? {row: Number(parts[2])} : {upload: parts[2]};
  if (parts[1] === 'r' ? !Number.isInteger(query.row) : !/^[\w-]+$/.test(query.upload)) return null;
  query.weight = parts[3] === undefined ? 1 : Number(parts[3]);
  if (parts[4]) query.box = parts[4].split(',').map(Number);
  if (!Number.isFinite(query.weight) || query.box && (query.box.length !== 4 || query.box.some(Number.isNaN))) return null;
  return query;
}

export function formatQuery({row, upload, weight = 1, box}) {
  return (row === undefined ? `u${upload}` : `r${row}`) + (weight === 1 ? '' : `*${weight}`)
    + (box ? `@${box.map((x) => Number(x.toFixed(4))).join(',')}` : '');
}

export function parse(fragment) {
  const fields = new URLSearchParams(fragment.replace(/^#/, ''));
  const state = {...DEFAULTS, filter: {}};
  state.queries = (fields.get('q') || '').split(';').map(parseQuery).filter(Boolean);
  for (const [key, value] of fields) {
    if (key.startsWith('f.')) (state.filter[key.slice(2)] ??= []).push(value);
    if (key.startsWith('r.')) {
      const [min, max] = value.split('..');
      state.filter[key.slice(2)] = {min: min || undefined, max: max || undefined};
    }
  }
  if (VIEWS.includes(fields.get('view'))) state.view = fields.get('view');
  if (SORTS.includes(fields.get('sort'))) state.sort = fields.get('sort');
  if (fields.get('stack') === '0') state.stack = false;
  if (/^\d+$/.test(fields.get('open') || '')) state.open = Number(fields.get('open'));
  if (fields.get('threshold') > 0) state.threshold = Number(fields.get('threshold'));
  const corners = (fields.get('lasso') || '').split(',').map(Number);
  if (corners.length >= 6 && corners.length % 2 === 0 && !corners.some(Number.isNaN)) state.lasso = corners;
  return state;
}

export function format(state) {
  const fields = new URLSearchParams();
  if (state.view !== 'search') fields.set('view', state.view);
  if (state.queries.length) fields.set('q', state.queries.map(formatQuery).join(';'));
  for (const [name, wanted] of Object.entries(state.filter)) {
    if (Array.isArray(wanted)) wanted.forEach((value) => fields.append('f.' + name, value));
    else fields.set('r.' + name, `${wanted.min ?? ''}..${wanted.max ?? ''}`);
  }
  if (state.sort !== 'score') fields.set('sort', state.sort);
  if (!state.stack) fields.set('stack', '0');
  if (state.lasso) fields.set('lasso', state.lasso.join(','));
  if (state.threshold !== DEFAULTS.threshold) fields.set('threshold', state.threshold);
  if (state.open !== null) fields.set('open', state.open);
  return '#' + fields.toString().replaceAll('%2C', ',').replaceAll('%3B', ';').replaceAll('%40', '@');
}

/** The state and how to change it: a change is a step that "back" undoes, unless it replaces the last one. */
export function useAddress() {
  const [state, setState] = useState(() => parse(location.hash));
  useEffect(() => {
    const follow = () => setState(parse(location.hash));
    addEventListener('popstate', follow);
    return () => removeEventListener('popstate', follow);
  }, []);
  const change = useCallback((changes, replace = false) => {
    const now = parse(location.hash);
    const next = {...now, ...(typeof changes === 'function' ? changes(now) : changes)};
    const address = format(next);
    if (address !== (location.hash || '#')) history[replace ? 'replaceState' : 'pushState'](null, '', address);
    setState(next);
  }, []);
  return [state, change];
}
