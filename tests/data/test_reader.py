import gc
import threading
import weakref

import tensorflow as tf

from omni_smola.data.reader import Reader


def numbers(lock, waiting):
    """0, 1, ... read ahead of who asks by a function of Python, which waits for the lock at 3."""

    def read(n):
        if n >= 3:
            waiting.set()
            with lock:
                pass
        return n

    dataset = tf.data.Dataset.range(100)
    dataset = dataset.map(lambda n: tf.numpy_function(read, [n], tf.int64), num_parallel_calls=2)
    return dataset.map(lambda n: {"n": n}).prefetch(2)


def test_who_holds_a_lock_does_not_wait_for_a_dataset_that_is_gone():
    lock, waiting, done = threading.Lock(), threading.Event(), threading.Event()

    def abandon():
        ring = [Reader(numbers(lock, waiting))]
        ring.append(ring)  # so that only the garbage collector finds it
        with lock:
            assert next(ring[0]) == {"n": 0}
            waiting.wait()
            del ring
            gc.collect()
        done.set()

    thread = threading.Thread(target=abandon, daemon=True)
    thread.start()
    ended = done.wait(60)
    if not ended:
        lock.release()
    assert ended
    thread.join()


def test_the_next_read_destroys_what_is_gone():
    dataset = tf.data.Dataset.range(2).map(lambda n: {"n": n})
    reader, other = Reader(dataset), Reader(dataset)
    assert next(reader) == {"n": 0}
    iterator = weakref.ref(reader._held[0])
    del reader
    assert iterator()
    assert list(other) == [{"n": 0}, {"n": 1}]
    assert iterator() is None
