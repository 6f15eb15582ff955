// What the page shows stands in the fragment of its address, so that back, reload and a sent link work.
// Pictures of the gallery stand in it by their ids, which outlast a restart of the server, unlike numbers of rows.
//   #q=i:cats/tom.jpg&q=-0.5@0.1,0.2,0.5,0.5u:3fa9…&q=t:a+red+bicycle&f.label=cat&r.date=2020..2021&sort=date&open=cats/tim.jpg
import {useState, useEffect, useCallback} from './ui.js';

const DEFAULTS = {view: 'search', queries: [], filter: {}, sort: 'score', stack: true, rerank: true, open: null, lasso: null, threshold: 0.95, prove: false, colour: ''};
export const SORTS = ['score', 'date', 'folder'];
const VIEWS = ['search', 'duplicates', 'map', 'marks', 'model'];

const KINDS = {i: 'id', u: 'upload', t: 'text'};

/** `[weight][@box]i:id`, `…u:upload` or `[weight]t:words` as {id, upload or text, weight, box}; null where it is none. */
function parseQuery(text) {
  const parts = /^(-?[\d.]+)?(?:@([\d.,]+))?([iut]):(.+)$/s.exec(text);
  if (!parts) return null;
  const query = {[KINDS[parts[3]]]: parts[4], weight: Number(parts[1] ?? 1)};
  if (parts[2]) query.box = parts[2].split(',').map(Number);
  return Number.isFinite(query.weight) && (!query.box || query.box.length === 4 && query.box.every(Number.isFinite)) ? query : null;
}

export function formatQuery({id, upload, text, weight = 1, box}) {
  return (weight === 1 ? '' : weight) + (box ? `@${box.map((x) => Number(x.toFixed(4))).join(',')}` : '')
    + (text !== undefined ? `t:${text}` : id === undefined ? `u:${upload}` : `i:${id}`);
}

export function parse(fragment) {
  const fields = new URLSearchParams(fragment.replace(/^#/, ''));
  const state = {...DEFAULTS, filter: {}};
  state.queries = fields.getAll('q').map(parseQuery).filter(Boolean);
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
  if (fields.get('rerank') === '0') state.rerank = false;
  state.open = fields.get('open') || null;
  state.colour = fields.get('colour') || '';
  if (fields.get('prove') === '1') state.prove = true;
  if (fields.get('threshold') > 0) state.threshold = Number(fields.get('threshold'));
  const corners = (fields.get('lasso') || '').split(',').map(Number);
  if (corners.length >= 6 && corners.length % 2 === 0 && !corners.some(Number.isNaN)) state.lasso = corners;
  return state;
}

export function format(state) {
  const fields = new URLSearchParams();
  if (state.view !== 'search') fields.set('view', state.view);
  state.queries.forEach((query) => fields.append('q', formatQuery(query)));
  for (const [name, wanted] of Object.entries(state.filter)) {
    if (Array.isArray(wanted)) wanted.forEach((value) => fields.append('f.' + name, value));
    else fields.set('r.' + name, `${wanted.min ?? ''}..${wanted.max ?? ''}`);
  }
  if (state.sort !== 'score') fields.set('sort', state.sort);
  if (!state.stack) fields.set('stack', '0');
  if (!state.rerank) fields.set('rerank', '0');
  if (state.lasso) fields.set('lasso', state.lasso.join(','));
  if (state.threshold !== DEFAULTS.threshold) fields.set('threshold', state.threshold);
  if (state.prove) fields.set('prove', '1');
  if (state.colour) fields.set('colour', state.colour);
  if (state.open !== null) fields.set('open', state.open);
  return '#' + fields.toString().replace(/%(2C|2F|3A|40)/g, decodeURIComponent);
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
