/** The words of the page in its two languages. */

const STORED = "hub-demo-language";

export const NAMES = { ann: "Ann", bo: "Bo" }; // they can log in; who else is there has no account

const WIRES = { sse: "SSE", websocket: "WebSocket", poll: "long-poll" };

const counted = (count) => (count === 1 ? "1 notification" : `${count.toLocaleString("en")} notifications`);
const lasted = (seconds) => (seconds < 120 ? `${seconds} s` : seconds < 7_200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3_600)} h`);
const lastedZh = (seconds) => (seconds < 120 ? `${seconds} 秒` : seconds < 7_200 ? `${Math.round(seconds / 60)} 分钟` : `${Math.round(seconds / 3_600)} 小时`);

/** Each key: in English, in Chinese; a function where there are values. */
export const WORDS = {
  "title": ["Reactive broadcast hub", "响应式广播中心"],
  "subtitle": ["What happens in the backend is here at once, and still here after you were away.", "后端发生的事立刻出现在这里；离开之后再回来，一条也不会少。"],
  "language": ["Language", "语言"],
  "link.api": ["API", "接口文档"],
  "link.metrics": ["Metrics", "监控指标"],
  "link.stats": ["Statistics", "统计"],
  "now": ["Connection", "连接"],
  "go.offline": ["Go offline for 10 s", "离线 10 秒"],
  "come.back": ["Come back now", "现在回来"],
  "state.connecting": ["Connecting", "正在连接"],
  "state.open": ["Live", "实时"],
  "state.again": ["Reconnecting", "正在重新连接"],
  "state.offline": ["No network", "没有网络"],
  "state.away": ["Offline", "离线"],
  "state.refused": ["Refused", "被拒绝"],
  "state.closed": ["Closed", "已关闭"],
  "in": [(seconds) => `in ${seconds} s`, (seconds) => `${seconds} 秒后`],
  "back.in": [(seconds) => `back in ${seconds} s`, (seconds) => `${seconds} 秒后回来`],
  "said.away": ["Away on purpose. The backend has just taken an order, and the news go on: all of it will be caught up with.", "有意离开。后端刚刚收到一个订单，新闻也在继续：回来时会全部补上。"],
  "said.lost": ["The connection is lost. The page comes back by itself, with its cursor.", "连接已断开。页面会带着游标自己回来。"],
  "said.refused": [(reason) => `The hub refuses this page: ${reason}.`, (reason) => `服务器拒绝了这个页面：${reason}。`],
  "said.fresh": ["Connected. What happens from now on appears here.", "已连接。从现在起发生的事都会出现在这里。"],
  "said.back": ["Back: nothing is missing.", "已回来：没有遗漏。"],
  "said.back.after": [(seconds) => `Back after ${lasted(seconds)}: nothing is missing.`, (seconds) => `离开 ${lastedZh(seconds)}后回来：没有遗漏。`],
  "said.nothing": ["Nothing was sent meanwhile.", "期间没有新的通知。"],
  "caught.up": [(count) => `${counted(count)} caught up.`, (count) => `补上了 ${count} 条通知。`],
  "gap.epoch": ["The hub was restarted; what it kept in memory is gone.", "服务器重新启动过，内存中的历史已经没有了。"],
  "gap.trimmed": ["Some of what was sent meanwhile is no longer kept.", "期间发送的一部分通知已经不再保留。"],
  "gap.unknown": ["The hub does not know the place this page asked for.", "服务器不认识这个页面要求的位置。"],
  "dropped": [(count) => `${counted(count)} left out: this page read too slowly.`, (count) => `跳过了 ${count} 条通知：这个页面读得太慢。`],
  "late": ["caught up", "已补上"],
  "late.title": ["Sent while this page was not connected, and caught up with", "在页面未连接时发送，之后补上"],
  "other.data": ["something of another form", "其他形式的内容"],
  "not.done": [(why) => `Not done: ${why}.`, (why) => `没有完成：${why}。`],
  "unreachable": ["the hub cannot be reached", "无法连接到服务器"],
  "copy": ["Copy", "复制"],
  "copied": ["Copied", "已复制"],
  "selected": ["Selected", "已选中"],
  "selected.how": ["Selected; press Control C to copy", "已选中；按 Control C 复制"],
  "code": ["The code behind it", "背后的代码"],
  "terminal": ["From a terminal", "在终端里"],

  "stocks": ["Stocks", "股票"],
  "orders": ["Orders", "订单"],
  "orders.list": ["Orders, the newest first", "订单，最新的在前"],
  "orders.none": ["No order yet. Create one, here or from a terminal.", "还没有订单。在这里或者在终端里创建一个。"],
  "order.amount": ["Amount", "金额"],
  "order.create": ["Create order", "创建订单"],
  "order.accepted": [(number) => `Accepted as order ${number}; the stream brings the rest.`, (number) => `已接受，订单 ${number}；其余由事件流送达。`],
  "news": ["News", "新闻"],
  "news.list": ["News, the newest first", "新闻，最新的在前"],
  "news.none": ["A flash a second, while somebody listens.", "只要有人在听，每秒一条快讯。"],

  "user": ["One user", "单个用户"],
  "user.am": ["I am user", "我是用户"],
  "user.follow": ["Follow", "关注"],
  "user.followed": ["Followed", "已关注"],
  "user.refused": ["Refused", "被拒绝"],
  "user.private": [(user) => `${NAMES[user] ?? user} has a login, and only that user may read this.`, (user) => `${NAMES[user] ?? user} 有登录帐号，只有本人可以读。`],
  "mail.list": ["Messages to this user, the newest first", "发给这个用户的消息，最新的在前"],
  "mail.none": ["Nothing for this user yet. Open a second window as somebody else.", "还没有给这个用户的消息。请以另一个用户打开第二个窗口。"],
  "mail.to": ["To user", "给用户"],
  "message": ["Message", "消息"],
  "send": ["Send", "发送"],
  "mail.accepted": [(id, to) => `Accepted, for user ${to} only.`, (id, to) => `已接受，只发给用户 ${to}。`],
  "mail.text": ["Hello!", "你好！"],

  "private": ["Private messages", "私信"],
  "log.in": ["Log in", "登录"],
  "log.out": ["Log out", "退出登录"],
  "you": ["You", "您"],
  "login.you": [(name) => `You are ${name}. Only your page gets what is sent to you.`, (name) => `您是 ${name}。发给您的消息只有您的页面能收到。`],
  "login.nobody": ["Nobody is logged in here.", "这里没有人登录。"],
  "login.hint": ["There are no passwords: this is a demo. To be the other user too, open a private window or a second browser.", "这是演示，没有密码。要同时成为另一个用户，请打开隐私窗口或者第二个浏览器。"],
  "login.refuses": ["Without the login, the hub refuses:", "没有登录，服务器会拒绝："],
  "letters.list": ["Private messages, the newest first", "私信，最新的在前"],
  "letters.none": [(name) => `Nothing for ${name} yet.`, (name) => `还没有给 ${name} 的私信。`],
  "letters.login": ["Log in to send a message, and to get what is sent to you.", "登录之后可以发送私信，并收到发给您的私信。"],
  "letter.to": ["To", "给"],
  "letter.accepted": [(id, to) => `Accepted, for ${NAMES[to]} only.`, (id, to) => `已接受，只发给 ${NAMES[to]}。`],
  "letter.text": ["Only you can see this.", "只有你能看到。"],
  "from": [(name) => `from ${name}`, (name) => `来自 ${name}`],
  "to": [(name) => `to ${name}`, (name) => `发给 ${name}`],
  "the.hub": ["the hub", "服务器"],

  "room": ["Room", "房间"],
  "room.people": ["Who is in the room", "谁在房间里"],
  "room.here": ["In the room", "在房间里"],
  "room.not.here": ["Not here", "不在"],
  "room.who": ["Only Ann and Bo can join. Log in as one of them.", "只有 Ann 和 Bo 可以加入。请先以其中一人登录。"],
  "room.member": ["You belong to the room.", "您是房间的成员。"],
  "room.no.member": ["You do not belong to the room.", "您不是房间的成员。"],
  "room.join": ["Join the room", "加入房间"],
  "room.leave": ["Leave the room", "离开房间"],
  "network": ["The network of this browser lets through", "这个浏览器的网络允许通过"],
  "network.open": ["everything", "一切"],
  "network.no.websockets": ["no WebSocket", "WebSocket 除外"],
  "network.no.streams": ["no stream either", "WebSocket 和事件流除外"],
  "wire.sse": ["Server-Sent Events", "Server-Sent Events（事件流）"],
  "wire.websocket": ["a WebSocket", "WebSocket"],
  "wire.poll": ["long-polls", "长轮询"],
  "by.sse": ["This page listens over Server-Sent Events, and sends by POST.", "这个页面通过 Server-Sent Events 接收，用 POST 发送。"],
  "by.websocket": ["This page listens and sends over one WebSocket.", "这个页面通过同一个 WebSocket 接收和发送。"],
  "by.poll": ["This page listens by long-polls, and sends by POST.", "这个页面通过长轮询接收，用 POST 发送。"],
  "by.none": ["", ""],
  "by.no.websocket": ["The WebSocket is refused. After the second try the page takes a stream.", "WebSocket 被拒绝。第二次尝试之后，页面改用事件流。"],
  "by.no.stream": ["Nothing comes over the stream. After 5 seconds, twice, the page polls.", "事件流没有任何内容。两次等待 5 秒之后，页面改用长轮询。"],
  "room.hint": ["You see what is said from the moment you join until you leave, also if this page is closed in between. A hidden tab stays in the room.", "从加入到离开，您能看到期间的全部发言，即使页面中途关闭过。隐藏的标签页仍然在房间里。"],
  "room.refuses": ["Without a membership, the hub refuses:", "不是成员，服务器会拒绝："],
  "talk.list": ["What is said in the room, the newest first", "房间里的发言，最新的在前"],
  "talk.login": ["Log in and join the room to read what is said.", "登录并加入房间之后可以看到发言。"],
  "talk.join": ["Join the room to read what is said, and to say something.", "加入房间之后可以看到发言，也可以发言。"],
  "talk.silent": ["Nothing has been said since you joined.", "您加入之后还没有人发言。"],
  "talk.say": ["Say", "发言"],
  "talk.accepted": ["Accepted, for the members of the room only.", "已接受，只有房间的成员能看到。"],
  "talk.text": ["Hello everybody!", "大家好！"],

  "chat": ["AI answer", "AI 回答"],
  "chat.simulated": ["Simulated", "模拟"],
  "chat.simulated.title": ["No model is asked: the hub makes the text up", "没有询问模型：文字由服务器编写"],
  "chat.question": ["Question", "问题"],
  "chat.default": ["How does server push work?", "服务器推送是怎么工作的？"],
  "ask": ["Ask", "提问"],
  "stop": ["Stop", "停止"],
  "stopping": ["Stopping", "正在停止"],
  "chat.tab": ["Open in a second tab", "在第二个标签页中打开"],
  "chat.region": ["The answer", "回答"],
  "chat.empty": ["Ask, and reload the page in the middle of the answer: it goes on. So it does in a second tab.", "提问，然后在回答的中间刷新页面：它会继续。在第二个标签页里也一样。"],
  "chat.idle": ["Idle", "空闲"],
  "chat.asking": ["Asking", "正在提问"],
  "chat.connecting": ["Connecting", "正在连接"],
  "chat.streaming": ["Streaming", "正在回答"],
  "chat.resting": ["Resting", "暂停观看"],
  "chat.done": ["Done", "完成"],
  "chat.failed": ["Failed", "失败"],
  "chat.cancelled": ["Stopped", "已停止"],
  "chat.gone": ["Gone", "不存在"],
  "chat.said.idle": ["", ""],
  "chat.said.asking": ["The hub is asked.", "正在询问服务器。"],
  "chat.said.connecting": ["The hub generates; this page goes and watches.", "服务器正在生成，页面开始观看。"],
  "chat.said.streaming": ["Generated by the hub, watched from here: closing this page stops nothing.", "由服务器生成，在这里观看：关闭页面不会停止它。"],
  "chat.said.resting": ["The answer goes on; this page comes back for the rest.", "回答仍在继续，页面回来时会补上其余部分。"],
  "chat.said.done": ["The answer is complete.", "回答完整。"],
  "chat.said.failed": ["The answer is not complete.", "回答不完整。"],
  "chat.said.cancelled": ["Stopped before its end; what there is stays.", "在结束之前停止，已有的文字保留。"],
  "chat.said.gone": ["The hub does not have this answer.", "服务器没有这个回答。"],

  "connection": ["Behind it", "幕后"],
  "connection.asks": ["one line for all tabs of this browser", "这个浏览器的所有标签页共用一条线路"],
  "sharing": ["the line is", "线路在"],
  "feed.wire": ["it comes over", "通过"],
  "sharing.worker": ["in a worker that all tabs share", "所有标签页共用的 worker 里"],
  "sharing.leader": ["in one of the tabs, for all of them", "其中一个标签页里，供所有标签页使用"],
  "sharing.none": ["in this tab alone", "这个标签页里"],
  "topics": ["this tab follows", "这个标签页订阅"],
  "cursor": ["it has got to", "已收到"],
  "last.gap": ["last gap", "上次缺口"],
  "left.out": ["left out", "跳过"],
  "tab.hint": ["Open this page in ten tabs: the browser still has one connection to the hub, and each tab has everything.", "在十个标签页中打开这个页面：浏览器仍然只有一个连接，而每个标签页什么都不缺。"],
  "tab.open": ["Open another tab", "再打开一个标签页"],
  "journal": ["What has happened", "发生过的事"],
  "journal.open": [(wire) => `Connected over ${WIRES[wire]}`, (wire) => `已通过 ${WIRES[wire]} 连接`],
  "journal.again": [(wire) => `Connected again, after the cursor, over ${WIRES[wire]}`, (wire) => `从游标处通过 ${WIRES[wire]} 重新连接`],
  "journal.lost": [(reason) => `Lost${reason ? `: ${reason}` : ""}`, (reason) => `断开${reason ? `：${reason}` : ""}`],
  "journal.refused": [(reason) => `Refused: ${reason}`, (reason) => `被拒绝：${reason}`],
  "journal.caught.up": [(count) => `Caught up with ${counted(count)}`, (count) => `补上了 ${count} 条通知`],
  "journal.dropped": [(count) => `${counted(count)} left out`, (count) => `跳过了 ${count} 条通知`],
  "journal.gap.epoch": ["A gap: the hub was restarted", "缺口：服务器重新启动过"],
  "journal.gap.trimmed": ["A gap: something is no longer kept", "缺口：一部分已经不再保留"],
  "journal.gap.unknown": ["A gap: the place is not known", "缺口：位置不存在"],
  "wire": ["What the wire said", "线路上的原文"],
  "wire.hint": ["As long as this is unfolded, the page reads a stream of its own as text.", "展开期间，页面会另外读取一个流，并原样显示。"],
};

/** What the demo's backend says, which keeps to the language of the classic examples; and each in English. */
const SAID = [
  [/^新订单 #(\d+) 已创建！$/, (number) => `Order #${number} was created`],
  [/^订单 #(\d+) 已付款！$/, (number) => `Order #${number} was paid`],
  [/^订单 #(\d+) 已发货！$/, (number) => `Order #${number} was shipped`],
  [/^这是第 (\d+) 条新闻快讯！$/, (number) => `News flash no. ${number}`],
  [/^欢迎你，(.+)！$/, (name) => `Welcome, ${name === "新朋友" ? "new friend" : name}!`],
];

let now = stored();

function stored() {
  let chosen = null;
  try {
    chosen = localStorage.getItem(STORED);
  } catch {
    // No storage: then the browser's own language.
  }
  return ["en", "zh"].includes(chosen) ? chosen : navigator.language.startsWith("zh") ? "zh" : "en";
}

export const language = () => now;

export function setLanguage(chosen) {
  now = chosen;
  try {
    localStorage.setItem(STORED, chosen);
  } catch {
    // No storage: then a reload asks the browser.
  }
}

/** Return the words of `key` in the language of the page. */
export function t(key, ...values) {
  const words = WORDS[key][now === "zh" ? 1 : 0];
  return typeof words === "function" ? words(...values) : words;
}

/** Return what the backend said in the language of the page; what somebody wrote stays as it is. */
export function said(text) {
  if (now === "zh") return text;
  for (const [pattern, translation] of SAID) {
    const found = pattern.exec(text);
    if (found) return translation(found[1]);
  }
  return text;
}

export const nameOf = (user) => NAMES[user] ?? t("the.hub");

const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const MONEY = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
export const clock = (at) => CLOCK.format(at);
export const money = (amount) => MONEY.format(amount);

/** Put the words into the page, and into the fields in which nobody has written yet. */
export function translate() {
  document.documentElement.lang = now === "zh" ? "zh-CN" : "en";
  document.title = t("title");
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const element of document.querySelectorAll("[data-t-label]")) element.setAttribute("aria-label", t(element.dataset.tLabel));
  for (const element of document.querySelectorAll("[data-t-title]")) element.title = t(element.dataset.tTitle);
  for (const element of document.querySelectorAll("[data-t-empty]")) element.dataset.empty = t(element.dataset.tEmpty);
  for (const field of document.querySelectorAll("[data-t-value]")) {
    if (WORDS[field.dataset.tValue].includes(field.value)) field.value = t(field.dataset.tValue);
  }
}
