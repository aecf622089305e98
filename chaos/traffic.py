"""The load: calls and texts of several organizations, posted as the providers would, at a steady pace.

Owns what is posted, when, to which web process, and what is noted of the answers. An event that got no 2xx
is posted again until it has one; a question is asked once, because nobody asks Vapi's for it again.
"""

from __future__ import annotations

import contextlib
import heapq
import http.client
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from uuid import UUID

from chaos import posts
from chaos.books import Books, Event, Question
from chaos.people import Business, Numbers
from chaos.posts import Post

SENDERS = 24
CONNECT_SECONDS = 2.0
POST_SECONDS = 20.0  # as long as Vapi waits
COPIES = 5
AGAIN_SECONDS = 1.0
GREETING_SECONDS, ASK_AGAIN_SECONDS = 10.0, 0.5
SETTLE_SECONDS = 90.0


@dataclass(frozen=True)
class Mix:
    """What the load is made of, as shares: of scenes that are calls, of texts that want a reply, and so on."""

    calls: float = 0.3
    replies: float = 0.4
    questions: float = 0.3
    bookings: float = 0.35
    duplicated: float = 0.1
    late_duplicates: float = 0.03
    shuffled: float = 0.3


class Unreachable(Exception):
    """No web process took the connection: nothing was sent."""


class Cut(Exception):
    """The connection ended, or nothing came, after the request had been sent."""


@dataclass
class Traffic:
    """The load on one house while one fault is on. ``webs`` are the addresses and ports of the web processes.

    ``took`` keeps how long every accept took; the load ends also when ``keep_on`` says no.
    """

    webs: Sequence[tuple[str, int]]
    base_url: str
    businesses: Sequence[Business]
    numbers: Numbers
    rng: random.Random
    rate: float  # events a second
    mix: Mix = field(default_factory=Mix)
    books: Books = field(default_factory=Books)
    took: list[float] = field(default_factory=list)
    keep_on: Callable[[], bool] = lambda: True

    def __post_init__(self) -> None:
        self._senders = ThreadPoolExecutor(SENDERS, "sender")
        self._copiers = ThreadPoolExecutor(COPIES * 4, "copier")
        self._again: list[tuple[float, int, Event, Post]] = []
        self._lock = threading.Lock()
        self._count = 0
        self._ended = threading.Event()
        self._resender = threading.Thread(target=self._resend, name="resender", daemon=True)
        self._resender.start()

    def greet(self) -> None:
        """One call for each organization at each web process: whom a process has met it knows without a database.

        By itself it gets to know everybody once a minute, and one that met an organization while it was being set up
        knows the rest some seconds later. Raises RuntimeError when a greeting is not answered.
        """
        for place in range(len(self.webs)):
            for business in self.businesses:
                call_id = str(UUID(int=self.rng.getrandbits(128), version=4))
                post = posts.vapi(business, "assistant-request", call_id, self.numbers.draw(), {})
                until = time.monotonic() + GREETING_SECONDS
                while not self._is_taken(business, post, place):
                    if time.monotonic() > until:
                        raise RuntimeError("a call was not taken")
                    time.sleep(ASK_AGAIN_SECONDS)

    def _is_taken(self, business: Business, post: Post, place: int) -> bool:
        status, answer = self._post(post, place)
        return status == 200 and business.assistant_id.encode() in answer

    def run(self, events: int) -> None:
        """Play scenes until so many events are acknowledged, as fast as the rate says and answers come."""
        began, sent = time.monotonic(), 0
        waiting = threading.BoundedSemaphore(SENDERS * 2)
        while self.books.acknowledged < events and self.keep_on():
            due = began + sent / self.rate
            if (early := due - time.monotonic()) > 0:
                time.sleep(early)
            elif early < -2:  # answers did not come for a while: what was not sent then is not made up for
                began -= early
            waiting.acquire()
            rng = random.Random(self.rng.random())
            is_call = rng.random() < self.mix.calls
            scene, size = (self._call, 4) if is_call else (self._text, 1)
            sent += size
            self._senders.submit(self._play, scene, rng).add_done_callback(lambda _: waiting.release())

    def finish(self) -> bool:
        """Wait until all scenes are over and every event is acknowledged; False when some never were."""
        self._senders.shutdown(wait=True)
        deadline = time.monotonic() + SETTLE_SECONDS
        while self._unacknowledged() and time.monotonic() < deadline:
            time.sleep(0.1)
        self._ended.set()
        self._resender.join()
        self._copiers.shutdown(wait=True)
        return not self._unacknowledged()

    def _unacknowledged(self) -> int:
        return sum(event.acknowledged_at is None for event in self.books.events)

    def _play(self, scene: Callable[[Business, random.Random], None], rng: random.Random) -> None:
        scene(rng.choice(self.businesses), rng)

    # --- scenes --------------------------------------------------------------------------------

    def _call(self, business: Business, rng: random.Random) -> None:
        """One call: it begins, something may be asked, it ends, it is reported; Vapi keeps to no order."""
        call_id, caller = str(UUID(int=rng.getrandbits(128), version=4)), self.numbers.draw()
        ended: dict[str, object] = {"status": "ended", "endedReason": "customer-ended-call"}
        told: list[tuple[str | None, str, dict[str, object]]] = [
            (f"status-update:{call_id}:in-progress", "status-update", {"status": "in-progress"}),
            (None, "speech-update", {"role": "user", "status": "started"}),  # which nobody handles
            (f"status-update:{call_id}:ended:customer-ended-call", "status-update", ended),
            (f"end-of-call-report:{call_id}", "end-of-call-report", posts.report_of(call_id)),
        ]
        if rng.random() < self.mix.shuffled:
            rng.shuffle(told)
        asks = rng.random() < self.mix.questions
        for number, (key, kind, fields) in enumerate(told):
            if asks and number == 1:
                self._ask(business, call_id, caller, rng)
            post = posts.vapi(business, kind, call_id, caller, fields)
            self.send(Event(business, key or posts.key_of(post), lane=f"call:{call_id}"), post, rng)

    def _text(self, business: Business, rng: random.Random) -> None:
        """A customer's text; one that cancels what was never booked must be answered by one text."""
        phone, sid = self.numbers.draw(), f"SM{rng.getrandbits(128):032x}"
        wants_reply = rng.random() < self.mix.replies
        event = Event(business, f"in:{sid}", lane=f"conversation:{phone}", reply_to=phone if wants_reply else None)
        self.send(
            event,
            posts.twilio(business, self.base_url, sid, phone, "C" if wants_reply else "Are you open on Friday?"),
            rng,
        )

    def send_text(self, business: Business) -> None:
        """One text that must be answered by one, whatever the mix says."""
        phone, sid = self.numbers.draw(), f"SM{self.rng.getrandbits(128):032x}"
        event = Event(business, f"in:{sid}", lane=f"conversation:{phone}", reply_to=phone)
        self.send(event, posts.twilio(business, self.base_url, sid, phone, "C"), self.rng)

    def send_report(self, business: Business, *, reason: str, buried: bool) -> Event:
        """A call's report alone, with a reason of its own."""
        call_id = str(UUID(int=self.rng.getrandbits(128), version=4))
        event = Event(business, f"end-of-call-report:{call_id}", lane=f"call:{call_id}", buried=buried)
        fields = posts.report_of(call_id, reason)
        self.send(event, posts.vapi(business, "end-of-call-report", call_id, self.numbers.draw(), fields), self.rng)
        return event

    def _ask(self, business: Business, call_id: str, caller: str, rng: random.Random) -> None:
        tool_call_id = f"call_{rng.getrandbits(96):024x}"
        token = f"{rng.getrandbits(48):012x}"
        if rng.random() < self.mix.bookings:
            slot = business.next_slot()
            question = Question(
                business, call_id, tool_call_id, "book_appointment", phone=caller, words=f"Guest {token}", slot=slot
            )
            self.ask(question, {"start": slot.isoformat(), "name": question.words, "phone": caller})
            return
        regular = rng.choice(business.regulars)
        with regular.turn:  # the next is asked for when this one was answered: so the order is known here
            regular.asked += 1
            words = f"Note {regular.asked:06d} {token}"
            question = Question(
                *(business, call_id, tool_call_id, "send_text"), phone=regular.phone, words=words, number=regular.asked
            )
            self.ask(question, {"phone": regular.phone, "text": words})

    # --- sending -------------------------------------------------------------------------------

    def send(self, event: Event, post: Post, rng: random.Random) -> None:
        """Post an event, some five times at once by way of different processes, and again until it is acknowledged."""
        self.books.events.append(event)
        if rng.random() < self.mix.duplicated:
            first = rng.randrange(len(self.webs))
            copies = [self._copiers.submit(self._post_event, event, post, first + number) for number in range(COPIES)]
            for copy in copies:
                copy.result()
        else:
            self._post_event(event, post, rng.randrange(len(self.webs)))
        if event.acknowledged_at is None or rng.random() < self.mix.late_duplicates:
            self._send_again(event, post)

    def ask(self, question: Question, arguments: dict[str, str]) -> None:
        """Put a question as Vapi does, and note how long the answer took and what it said."""
        function = {"name": question.tool, "arguments": arguments}
        call = {"id": question.tool_call_id, "type": "function", "function": function}
        post = posts.vapi(question.business, "tool-calls", question.call_id, question.phone, {"toolCallList": [call]})
        self.books.questions.append(question)
        began = time.monotonic()
        try:
            question.status, answer = self._post(post, int(question.call_id[:8], 16), taken_by=question.taken)
            question.said = posts.said_in(answer, question.tool_call_id) if question.status == 200 else ""
        except (Cut, Unreachable):
            question.cut = True
        question.seconds = time.monotonic() - began

    def _post_event(self, event: Event, post: Post, web: int) -> None:
        event.posts += 1
        began = time.monotonic()
        with contextlib.suppress(Cut, Unreachable):
            status, _ = self._post(post, web)
            if 200 <= status < 300:
                self.books.acknowledge(event)
                self.took.append(time.monotonic() - began)
                return
        self.books.refuse()

    def _post(self, post: Post, web: int, taken_by: Callable[[str], None] = lambda _: None) -> tuple[int, bytes]:
        """By way of this web process, or of the next when it takes no connection, as a balancer would."""
        for number in range(len(self.webs)):
            host, port = self.webs[(web + number) % len(self.webs)]
            connection = http.client.HTTPConnection(host, port, timeout=CONNECT_SECONDS)
            with contextlib.closing(connection):
                try:
                    connection.connect()
                except OSError:
                    continue
                taken_by(host)
                connection.sock.settimeout(POST_SECONDS)
                try:
                    connection.request("POST", post.path, body=post.body, headers=dict(post.headers))
                    answer = connection.getresponse()
                    return answer.status, answer.read()
                except (OSError, http.client.HTTPException) as error:
                    raise Cut from error
        raise Unreachable

    def _send_again(self, event: Event, post: Post) -> None:
        with self._lock:
            self._count += 1
            heapq.heappush(self._again, (time.monotonic() + AGAIN_SECONDS, self._count, event, post))

    def _resend(self) -> None:
        while not self._ended.wait(0.05):
            with self._lock:
                due = self._again and self._again[0][0] <= time.monotonic()
                entry = heapq.heappop(self._again) if due else None
            if entry is None:
                continue
            _, number, event, post = entry
            self._copiers.submit(self._resend_one, event, post, number)

    def _resend_one(self, event: Event, post: Post, number: int) -> None:
        self._post_event(event, post, number)
        if event.acknowledged_at is None:
            self._send_again(event, post)
