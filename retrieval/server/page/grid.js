// The results: justified rows of thumbnails, and the line below which nothing probably matches.
import {html, useEffect, useLayoutEffect, useMemo, useRef, useState, Thumbnail, isTyping, percent, score} from './ui.js';
import {justify} from './justified.js';
import {Found} from './crop.js';

const GAP = 8;

function describe(item) {
  return [item.name, item.label, item.score == null ? '' : `score ${score(item.score)}`,
    item.probability == null ? '' : `probability ${percent(item.probability)}`, item.box ? 'the query was found in it' : ''].filter(Boolean).join(', ');
}

function Card({item, width, height, current, actions, selected, mark, canMark, hasPictures, dated}) {
  const tab = current ? 0 : -1;
  const tool = (name, label, symbol, pressed) => html`<button class=${'tool ' + name} tabindex=${tab} title=${label}
    aria-label=${`${label}: ${item.name}`} aria-pressed=${pressed} onClick=${() => actions[name](item)}>${symbol}</button>`;
  return html`<li class=${'card' + (selected ? ' selected' : '') + (item.match === false ? ' below' : '')} data-row=${item.row} style=${{width: `${width}px`}}>
    <button class="picture" tabindex=${tab} style=${{height: `${height}px`}} onClick=${() => actions.open(item)} aria-label=${describe(item)}>
      <${Thumbnail} row=${item.row} name=${item.id} pictured=${hasPictures} size=${height * devicePixelRatio > 300 ? 512 : 256} />
      <${Found} box=${item.box} />
    </button>
    <input class="pick" type="checkbox" tabindex=${tab} checked=${selected} aria-label=${`Select ${item.name}`}
      onClick=${(event) => actions.select(item, event.shiftKey)} />
    ${item.stacked?.length > 0 && html`<button class="stacked" tabindex=${tab} title="Near-identical pictures: show them"
      aria-label=${`${item.stacked.length} near-identical pictures of ${item.name}`} onClick=${() => actions.unstack(item)}>+${item.stacked.length}</button>`}
    <div class="tools">
      ${tool('more', 'More like this', '⌕')}${tool('plus', 'Add to the query', '+')}${tool('minus', 'Less like this', '−')}
      ${canMark && html`${tool('right', 'Right', '✓', mark === true)}${tool('wrong', 'Wrong', '✗', mark === false)}`}
    </div>
    <div class="caption">
      ${item.score != null && html`<span class="score" title=${`score ${score(item.score)}`}>${item.probability != null ? percent(item.probability) : score(item.score)}</span> `}
      ${dated && html`<span class="score">${item.date?.slice(0, 10) ?? 'no date'}</span> `}
      ${item.label != null && html`<span class="label">${item.label}</span> `}<span class="name" title=${item.id}>${item.name}</span>
      ${mark !== undefined && html` <span class=${mark ? 'mark yes' : 'mark no'}>${mark ? '✓' : '✗'}</span>`}
    </div>
  </li>`;
}

/** The card in the next or last row that stands most nearly above or below. */
function vertical(cards, from, down) {
  const box = from.getBoundingClientRect();
  let best = null;
  let nearest = Infinity;
  for (const card of cards) {
    const other = card.getBoundingClientRect();
    const apart = down ? other.top - box.bottom : box.top - other.bottom;
    if (apart < -1) continue;
    const far = apart * 1000 + Math.abs(other.left + other.width / 2 - box.left - box.width / 2);
    if (far < nearest) { nearest = far; best = card; }
  }
  return best;
}

export function Grid({items, threshold, line, actions, selection, markOf, canMark, hasPictures, small, dated}) {
  const root = useRef();
  const [width, setWidth] = useState(0);
  const [current, setCurrent] = useState(null);
  useLayoutEffect(() => {
    // a width in whole pixels, and not one too many: a row that is too wide breaks
    const measure = () => setWidth(Math.floor(root.current.getBoundingClientRect().width));
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(root.current);
    return () => observer.disconnect();
  }, []);
  const cut = line ? items.findIndex((item) => item.match === false) : -1;
  const height = small ? 96 : width < 500 ? 130 : 180;
  const [above, below] = useMemo(() => (width
    ? [justify(cut < 0 ? items : items.slice(0, cut), width, height, GAP), justify(cut < 0 ? [] : items.slice(cut), width, height, GAP)]
    : [[], []]), [items, width, height, cut]);
  const here = items.some((item) => item.row === current) ? current : items[0]?.row;

  const onKeyDown = (event) => {
    if (isTyping(event)) return;
    const card = event.target.closest('.card');
    if (!card) return;
    const cards = [...root.current.querySelectorAll('.card')];
    const at = cards.indexOf(card);
    const steps = {ArrowRight: cards[at + 1], ArrowLeft: cards[at - 1], Home: cards[0], End: cards.at(-1)};
    let next = steps[event.key];
    if (event.key === 'ArrowDown' || event.key === 'ArrowUp') next = vertical(cards, card, event.key === 'ArrowDown');
    if (next) {
      event.preventDefault();
      setCurrent(Number(next.dataset.row));
      next.querySelector('.picture').focus();
      return;
    }
    const item = items[at];
    const action = {m: 'more', '+': 'plus', '-': 'minus', x: 'select', y: 'right', n: 'wrong'}[event.key];
    if (!action || (action === 'right' || action === 'wrong') && !canMark) return;
    event.preventDefault();
    actions[action](item);
  };
  const rows = (list) => list.map((row) => row.cells.map(({item, width: wide}) => html`<${Card} key=${item.row} item=${item}
    width=${wide} height=${row.height} current=${item.row === here} actions=${actions} selected=${selection.has(item.row)}
    mark=${markOf(item)} canMark=${canMark} hasPictures=${hasPictures} dated=${dated} />`)).flat();
  return html`<div class="grid" ref=${root} onKeyDown=${onKeyDown}
      onFocusIn=${(event) => { const card = event.target.closest('.card'); if (card) setCurrent(Number(card.dataset.row)); }}>
    ${above.length > 0 && html`<ul aria-label="Results">${rows(above)}</ul>`}
    ${cut >= 0 && html`<p class="line" role="separator" aria-label="Line of the threshold"><span>below this line probably nothing matches
      ${threshold != null && html` (score under ${score(threshold)})`}</span></p>`}
    ${below.length > 0 && html`<ul class="unlikely" aria-label="Results that probably do not match">${rows(below)}</ul>`}
  </div>`;
}

/** A line at the end of a list that asks for more when it comes into sight. */
export function More({onMore, left}) {
  const ref = useRef();
  useEffect(() => {
    const observer = new IntersectionObserver(([entry]) => entry.isIntersecting && onMore(), {rootMargin: '800px'});
    observer.observe(ref.current);
    return () => observer.disconnect();
  }, [onMore]);
  return html`<p class="more"><button ref=${ref} onClick=${onMore}>Show more (${left.toLocaleString('en')} left)</button></p>`;
}
