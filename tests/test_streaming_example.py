"""The streaming example: memories side by side, each of its own."""

import numpy as np
import pytest
import streaming_memory

import keras_mnm


def test_pairs_are_stored_recalled_reset_and_restored(tmp_path, capsys):
    streaming_memory.main(["--users", "2", "--session", str(tmp_path / "new" / "session.npz")])
    lines = [line for line in capsys.readouterr().out.splitlines() if "of 4 right" in line]
    recalled, after_reset, restored = lines[:2], lines[2:4], lines[4:]
    assert all("4 of 4 right" in line for line in recalled)
    assert "4 of 4 right" not in after_reset[0]
    assert after_reset[1] == recalled[1]
    assert restored == recalled


def test_a_session_is_a_file(tmp_path, capsys):
    with pytest.raises(SystemExit):
        streaming_memory.main(["--session", str(tmp_path)])
    assert "is a folder; name a file" in capsys.readouterr().err


def test_asking_and_other_users_change_nothing():
    model = keras_mnm.from_preset("dictionary-4x1-mnm-p")
    memory = streaming_memory.StreamingDictionary(model, 2)
    memory.store(0, 3, 7)
    before = [state.copy() for state in memory.states]
    assert memory.recall(0, 3) == 7
    memory.recall(1, 3)
    for old, new in zip(before, memory.states):
        np.testing.assert_array_equal(old, new)
    memory.store(1, 3, 9)
    assert memory.recall(1, 3) == 9
    for old, new in zip(before, memory.states):
        if old.shape[1] != 2:  # the meta objective is of the last call
            np.testing.assert_array_equal(old[0], new[0])
    memory.reset(0)
    assert all(np.all(state[0] == 0) for state in memory.states)
    assert memory.recall(1, 3) == 9
