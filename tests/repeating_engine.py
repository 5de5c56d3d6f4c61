"""An engine that does to a graph what engines may do, drawn by a seed.

It runs the real graph, batch or stream, bundle by bundle. Any bundle may be run again, before its
outputs are taken or long after, alone or with the steps behind it; bundles come in any order; two
run at once, and change turns wherever they touch storage; storage fails before an operation, or
after it, so that its answer is lost. What it may not do, as engines may not, is lose an element.
"""

import contextlib
import logging
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam
import pytest
from apache_beam import coders
from apache_beam.internal import pickler
from apache_beam.pipeline import AppliedPTransform
from apache_beam.pvalue import PCollection
from apache_beam.runners.common import DoFnRunner, Receiver
from apache_beam.transforms.sideinputs import SideInputMap
from apache_beam.transforms.window import GlobalWindows

from beamsplitter.storage.file_facts import UnusableStorageError
from beamsplitter.storage.local_files import LocalFiles

TRIES = 60
IDENTICAL = (beam.Reshuffle, beam.WindowInto)


@dataclass(frozen=True)
class Mischief:
    """How much of what happens; each is a probability.

    `repeats` of a bundle whose outputs are dropped, `doubles` of one whose outputs are taken twice,
    `faults` of a storage operation, `turns` of a change between two bundles at one. No more than
    `most` bundles are repeated: what a repeated one gives goes through all steps again.
    """

    repeats: float = 0.3
    doubles: float = 0.0
    faults: float = 0.02
    turns: float = 0.3
    most: int = 8


NONE = Mischief(repeats=0, faults=0, turns=0)


class StreamOf(beam.PTransform):
    """An unbounded PCollection of some values."""

    def __init__(self, values: Iterable[bytes]) -> None:
        super().__init__()
        self.values = list(values)

    def get_windowing(self, inputs: Any) -> Any:
        return beam.Windowing(GlobalWindows())

    def expand(self, pipeline: Any) -> PCollection:
        return PCollection(self.pipeline, element_type=bytes, is_bounded=False)


class Killed(BaseException):
    """The run was killed: nothing that it had begun goes on."""


class Storage:
    """Stands between the graph and its files; gives other bundles their turn, and fails.

    Parameters
    ----------
    files : the kind of files that the graph uses
    kill_at : number of the operation at which the run is killed, before or after it
    note : told of each operation that was done: its name, and the path
    """

    OPERATIONS = ("stat", "has", "written_ns", "read", "remove", "names_alike")

    def __init__(
        self,
        engine: "Engine",
        *,
        files: type = LocalFiles,
        kill_at: int | None = None,
        note: Callable[[str, str], None] = lambda name, path: None,
    ) -> None:
        self.engine = engine
        self.files = files
        self.kill_at = kill_at
        self.note = note
        self.operations = 0
        self.log: list[str] = []

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """While inside, all files of this kind are used through it."""
        with pytest.MonkeyPatch.context() as patch:
            for name in self.OPERATIONS:
                patch.setattr(self.files, name, self._around(name, getattr(self.files, name)))
            for name in ("reading", "writing"):
                patch.setattr(self.files, name, self._opening(name, getattr(self.files, name)))
            yield

    def _around(self, name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
        def done(files: Any, path: str, *arguments: Any, **options: Any) -> Any:
            self.point(f"before {name}", path)
            result = operation(files, path, *arguments, **options)
            self.note(name, path)
            self.point(f"after {name}", path)
            return result

        return done

    def _opening(self, name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
        @contextlib.contextmanager
        def opened(files: Any, path: str, *arguments: Any) -> Iterator[Any]:
            self.point(f"before {name}", path)
            with operation(files, path, *arguments) as file:
                yield file
                self.point(f"within {name}", path)
            self.note(name, path)
            self.point(f"after {name}", path)

        return opened

    def point(self, what: str, path: str) -> None:
        """A place where another bundle may have its turn, and where storage may fail."""
        self.engine.turns.change()
        if self.engine.is_killed:
            raise Killed
        self.operations += 1
        if self.operations == self.kill_at:
            self.engine.is_killed = True
            raise Killed
        if self.engine.draws(self.engine.mischief.faults):
            self.log.append(f"{what} {path}")
            raise UnusableStorageError(None, f"fails by design, {what}", path)


class Turns:
    """Lets one of some threads run at a time; which one is next is drawn."""

    def __init__(self, engine: "Engine") -> None:
        self.engine = engine
        self.condition = threading.Condition()
        self.waiting: list[int] = []
        self.running: int | None = None

    def run(self, actions: list[Callable[[], None]]) -> None:
        """Run actions at once; raises what the first of them raised, after all have ended."""
        if len(actions) == 1:
            actions[0]()
            return
        errors: list[BaseException] = []

        def act(number: int, action: Callable[[], None]) -> None:
            with self.condition:
                self.condition.wait_for(lambda: self.running == number)
            try:
                action()
            except BaseException as error:
                errors.append(error)
            finally:
                with self.condition:
                    self.waiting.remove(number)
                    self._hand_over()

        threads = [
            threading.Thread(target=act, args=(number, action), daemon=True)
            for number, action in enumerate(actions)
        ]
        self.waiting = list(range(len(actions)))
        for thread in threads:
            thread.start()
        with self.condition:
            self._hand_over()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    def change(self) -> None:
        """Let another thread go on, if so drawn."""
        if self.running is None or not self.engine.draws(self.engine.mischief.turns):
            return
        with self.condition:
            me = self.running
            self._hand_over()
            self.condition.wait_for(lambda: self.running == me)

    def _hand_over(self) -> None:
        self.running = self.engine.random.choice(self.waiting) if self.waiting else None
        self.condition.notify_all()


@dataclass
class Bundle:
    """Encoded elements at a step; the outputs of a ghost are dropped somewhere behind it."""

    step: AppliedPTransform
    elements: list[Any]
    is_ghost: bool = False
    tries: int = 0


@dataclass
class _Output(Receiver):
    values: list[Any] = field(default_factory=list)

    def receive(self, windowed_value: Any) -> None:
        self.values.append(windowed_value.value)


class Engine:
    """Runs one pipeline.

    Parameters
    ----------
    seed : of all that is drawn
    mischief : how much of what happens
    files, kill_at, note : see `Storage`
    """

    def __init__(self, seed: int, mischief: Mischief = Mischief(), **storage: Any) -> None:
        self.random = random.Random(seed)
        self.mischief = mischief
        self.turns = Turns(self)
        self.storage = Storage(self, **storage)
        self.is_killed = False
        self.repeated = 0

    def draws(self, probability: float) -> bool:
        """Whether something of this probability happens now."""
        return probability > 0 and self.random.random() < probability

    def run(self, pipeline: beam.Pipeline, watched: dict[str, PCollection]) -> dict[str, list[Any]]:
        """Run to the end; gives the elements of some PCollections.

        Raises
        ------
        Killed : it was to be killed
        AssertionError : a bundle fails however often it is tried
        """
        (results,) = self.run_together([(pipeline, watched)])
        return results

    def run_together(
        self, graphs: list[tuple[beam.Pipeline, dict[str, PCollection]]]
    ) -> list[dict[str, list[Any]]]:
        """Run pipelines at once, as `run` does one."""
        self.steps = [
            step for pipeline, _ in graphs for step in _leaves(pipeline.transforms_stack[0])
        ]
        self.takers: dict[PCollection, list[AppliedPTransform]] = {}
        for step in self.steps:
            for taken in step.inputs:
                self.takers.setdefault(taken, []).append(step)
        self.workers: list[dict[AppliedPTransform, Any]] = [{}, {}]
        self.values: dict[PCollection, list[bytes]] = {}
        self.waiting: list[Bundle] = []
        self.groups: dict[AppliedPTransform, dict[bytes, list[bytes]]] = {}
        self.barriers = {
            step
            for step in self.steps
            if (_is_group(step) and step.inputs[0].is_bounded) or step.side_inputs
        }
        self.singles = self._before(
            {view.pvalue for step in self.steps for view in step.side_inputs}
        )
        self.held: dict[AppliedPTransform, list[bytes]] = {step: [] for step in self.barriers}
        self.fired: set[AppliedPTransform] = set()
        # It logs each exception, and they are many.
        logging.getLogger("apache_beam.runners.common").setLevel(logging.CRITICAL)
        try:
            with self.storage.installed():
                for step in self.steps:
                    if isinstance(step.transform, beam.Impulse):
                        self._take(step, None, [b""], is_ghost=False)
                    elif isinstance(step.transform, StreamOf):
                        self._take(step, None, step.transform.values, is_ghost=False)
                while self._work():
                    pass
            return [
                {name: self._decoded(pcoll) for name, pcoll in watched.items()}
                for _, watched in graphs
            ]
        finally:
            # It refers to itself, and would hold all samples until garbage is looked for.
            for held in (self.values, self.waiting, self.groups, self.held, *self.workers):
                held.clear()

    def _before(self, pcolls: set[PCollection]) -> set[AppliedPTransform]:
        """The steps that lead to PCollections, back to a barrier: what is one stays one."""
        found: set[AppliedPTransform] = set()
        for step in reversed(self.steps):
            if pcolls & {*step.outputs.values()} and not _is_group(step):
                found.add(step)
                pcolls = pcolls | {*step.inputs}
        return found

    def add(self, value: bytes) -> None:
        """One more element of the stream, while it is running."""
        (step,) = (each for each in self.steps if isinstance(each.transform, StreamOf))
        self._take(step, None, [value], is_ghost=False)

    def _work(self) -> bool:
        """Run a bundle, or two at once; or let a barrier fall. False when all is done."""
        if not self.waiting:
            ready = next((each for each in self.steps if each in self.barriers - self.fired), None)
            if ready is None:
                return False
            self.fired.add(ready)
            self._release(ready)
            return True
        count = 2 if len(self.waiting) > 1 and self.draws(self.mischief.turns) else 1
        bundles = [
            self.waiting.pop(self._index_of_next()) for _ in range(min(count, len(self.waiting)))
        ]
        first = bundles[0]
        # The same work twice at once is what shows most.
        if self._may_repeat(first) and self.draws(self.mischief.repeats):
            self.repeated += 1
            ghost = Bundle(first.step, first.elements, is_ghost=True)
            if self.draws(0.5):
                self.waiting += bundles[1:]
                bundles = [first, ghost]
                self.random.shuffle(bundles)
            else:
                self.waiting.append(ghost)
        elif self._may_repeat(first) and self.draws(self.mischief.doubles):
            self.repeated += 1
            self.waiting.append(Bundle(first.step, first.elements))
        self.turns.run(
            [
                lambda bundle=bundle, worker=worker: self._run(bundle, worker)  # type: ignore[misc]
                for worker, bundle in enumerate(bundles)
            ]
        )
        return True

    def _may_repeat(self, bundle: Bundle) -> bool:
        return (
            self.repeated < self.mischief.most
            and not bundle.is_ghost
            and bundle.step not in self.singles
        )

    def _index_of_next(self) -> int:
        if self.mischief is NONE:
            return 0
        return self.random.randrange(len(self.waiting))

    def _run(self, bundle: Bundle, worker: int) -> None:
        try:
            outputs = self._outputs_of(bundle, worker)
        except Exception as error:
            if self.is_killed:
                raise Killed from error
            if not _is_by_design(error):
                raise
            bundle.tries += 1
            assert bundle.tries < TRIES, f"{bundle.step.full_label} fails for good"
            if bundle.is_ghost and self.draws(0.5):
                return
            self.waiting.append(bundle)
            return
        for tag, values in outputs.items():
            self._take(bundle.step, tag, values, is_ghost=bundle.is_ghost)

    def _outputs_of(self, bundle: Bundle, worker: int) -> dict[Any, list[Any]]:
        step = bundle.step
        coder = _coder_of(step.inputs[0])
        elements = [coder.decode(each) for each in bundle.elements]
        if step not in self.workers[worker]:
            self.workers[worker][step] = self._started(step)
        runner, receivers = self.workers[worker][step]
        for receiver in receivers.values():
            receiver.values = []
        runner.start()
        for element in elements:
            runner.process(GlobalWindows.windowed_value(element))
        runner.finish()
        outputs = {tag: receiver.values for tag, receiver in receivers.items()}
        for receiver in receivers.values():
            receiver.values = []
        return outputs

    def _started(self, step: AppliedPTransform) -> tuple[DoFnRunner, dict[Any, _Output]]:
        """A worker's own copy of a step."""
        receivers = {tag: _Output() for tag in (None, *step.outputs)}
        runner = DoFnRunner(
            pickler.roundtrip(step.transform.fn),
            step.transform.args,
            step.transform.kwargs,
            [self._side_input(view) for view in step.side_inputs],
            step.inputs[0].windowing,
            tagged_receivers=receivers,
            step_name=step.full_label,
        )
        runner.setup()
        return runner, receivers

    def _side_input(self, view: Any) -> SideInputMap:
        values = [GlobalWindows.windowed_value(value) for value in self._decoded(view.pvalue)]
        return SideInputMap(type(view), view._view_options(), values)

    def _take(
        self, step: AppliedPTransform, tag: Any, values: list[Any], *, is_ghost: bool
    ) -> None:
        """Outputs of a step, to those behind it."""
        pcoll = step.outputs.get(tag)
        if pcoll is None:
            return
        self._hand_on(pcoll, [_coder_of(pcoll).encode(value) for value in values], is_ghost)

    def _hand_on(self, pcoll: PCollection, encoded: list[bytes], is_ghost: bool) -> None:
        if not is_ghost:
            self.values.setdefault(pcoll, []).extend(encoded)
        for step in self.takers.get(pcoll, ()):
            self._give(step, encoded, is_ghost)

    def _give(self, step: AppliedPTransform, encoded: list[bytes], is_ghost: bool) -> None:
        if isinstance(step.transform, (beam.Flatten, *IDENTICAL)):
            (output,) = step.outputs.values()
            taken = step.inputs[0]
            if _coder_of(output) != _coder_of(taken):
                decoded = [_coder_of(taken).decode(each) for each in encoded]
                encoded = [_coder_of(output).encode(each) for each in decoded]
            self._hand_on(output, encoded, is_ghost)
        elif step in self.barriers:
            if not is_ghost:
                self.held[step].extend(encoded)
        elif _is_group(step):
            if not is_ghost:
                self._group(step, encoded)
        else:
            self._enqueue(step, encoded, is_ghost)

    def _enqueue(self, step: AppliedPTransform, encoded: list[bytes], is_ghost: bool) -> None:
        if is_ghost and self.draws(0.3):
            return
        encoded = list(encoded)
        if self.mischief is not NONE:
            self.random.shuffle(encoded)
        while encoded:
            count = self.random.randint(1, len(encoded)) if self.mischief is not NONE else 1
            self.waiting.append(Bundle(step, encoded[:count], is_ghost))
            del encoded[:count]

    def _release(self, step: AppliedPTransform) -> None:
        """All that a step has waited for is there."""
        if not _is_group(step):
            self._enqueue(step, self.held[step], False)
            return
        groups: dict[bytes, list[bytes]] = {}
        for key in self._grouped(step, self.held[step], groups):
            self._emit_group(step, groups, key)

    def _group(self, step: AppliedPTransform, encoded: list[bytes]) -> None:
        """In a stream: a group is told again at each element."""
        groups = self.groups.setdefault(step, {})
        for each in encoded:
            for key in self._grouped(step, [each], groups):
                self._emit_group(step, groups, key)

    def _grouped(
        self, step: AppliedPTransform, encoded: list[bytes], groups: dict[bytes, list[bytes]]
    ) -> list[bytes]:
        coder = _coder_of(step.inputs[0])
        keys = dict.fromkeys(coder.key_coder().encode(coder.decode(each)[0]) for each in encoded)
        for each in encoded:
            groups.setdefault(coder.key_coder().encode(coder.decode(each)[0]), []).append(each)
        return list(keys)

    def _emit_group(
        self, step: AppliedPTransform, groups: dict[bytes, list[bytes]], key: bytes
    ) -> None:
        coder = _coder_of(step.inputs[0])
        pairs = [coder.decode(each) for each in groups[key]]
        if self.mischief is not NONE:
            self.random.shuffle(pairs)
        self._take(step, None, [(pairs[0][0], [value for _, value in pairs])], is_ghost=False)

    def _decoded(self, pcoll: PCollection) -> list[Any]:
        return [_coder_of(pcoll).decode(each) for each in self.values.get(pcoll, [])]


def _is_by_design(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, UnusableStorageError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _leaves(step: AppliedPTransform) -> Iterator[AppliedPTransform]:
    if isinstance(step.transform, IDENTICAL):
        yield step
    elif step.parts:
        for part in step.parts:
            yield from _leaves(part)
    # A composite that does nothing gives what it takes.
    elif any(pcoll.producer is step for pcoll in step.outputs.values()):
        yield step


def _is_group(step: AppliedPTransform) -> bool:
    return isinstance(step.transform, beam.GroupByKey)


def _coder_of(pcoll: PCollection) -> coders.Coder:
    return coders.registry.get_coder(Any if pcoll.element_type is None else pcoll.element_type)
