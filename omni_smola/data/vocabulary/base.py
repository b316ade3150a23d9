"""What vocabularies have in common whose pieces are cut by Python, not by an op of TensorFlow."""

import numpy as np
import seqio
import tensorflow as tf


class PythonVocabulary(seqio.Vocabulary):
    """A vocabulary by its `_encode` and `_decode` alone."""

    def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
        """A scalar string -> (n,) int32."""

        def encode(text: bytes) -> np.ndarray:
            return np.array(self._encode(text), np.int32)

        return tf.ensure_shape(tf.numpy_function(encode, [s], tf.int32), (None,))

    def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
        """(..., n) int32 -> (...) string."""

        def decode(rows: np.ndarray) -> np.ndarray:
            texts = [self._decode(row).encode() for row in rows.reshape(-1, rows.shape[-1])]
            return np.array(texts, object).reshape(rows.shape[:-1])

        return tf.ensure_shape(tf.numpy_function(decode, [ids], tf.string), ids.shape[:-1])
