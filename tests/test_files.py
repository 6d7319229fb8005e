"""Files and folders appear whole or not at all, or by whole lines."""

import os
import stat
import subprocess
import sys
import threading
from contextlib import closing

import pytest

from fun_transformer import files


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("content", ["你好\nlast\r\n", b"\x00\xff", ""])
def test_a_file_is_replaced_with_exactly_the_content(tmp_path, content):
    path = tmp_path / "a.txt"
    path.write_text("before")
    files.write_atomically(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert names(tmp_path) == ["a.txt"]


def test_what_cannot_be_encoded_changes_nothing(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(UnicodeEncodeError):
        files.write_atomically(path, "\ud800")
    assert path.read_text() == "before" and names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failing_block_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(error), files.whole_file(path) as partial:
        partial.write_text("half")
        assert path.read_text() == "before"
        raise error
    assert path.read_text() == "before" and names(tmp_path) == ["a.txt"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"), files.whole_file(tmp_path / "nowhere" / "a"):
        pass


def test_the_file_behind_a_link_is_replaced(tmp_path):
    (tmp_path / "real").write_text("before")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with files.whole_file(tmp_path / "link") as partial:
        partial.write_text("after")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "after"


@pytest.mark.parametrize(("keep", "kept"), [(0, ""), (1, "one\r\n"), (2, "one\r\nzwei 二\n")])
def test_a_file_grows_after_the_lines_that_are_kept(tmp_path, keep, kept):
    path = tmp_path / "a.txt"
    path.write_bytes("one\r\nzwei 二\nhal".encode())
    assert files.count_lines(path) == 2 and files.count_lines(tmp_path / "none") == 0
    with closing(files.LineFile(path, keep)) as file:
        file.write(["你好", "b\u2028c"])
        assert path.read_bytes() == f"{kept}你好\nb\u2028c\n".encode()
        file.write([])
        file.write(["d"])
    assert path.read_bytes() == f"{kept}你好\nb\u2028c\nd\n".encode()
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files, as a full disk does")
def test_a_full_disk_leaves_whole_lines(children, tmp_path):
    path = tmp_path / "a.txt"
    code = """if True:
        import resource, signal, sys
        from fun_transformer import files
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
        file = files.LineFile(sys.argv[1])
        file.write(["one"])
        try:
            file.write(["two", "three"])
        except OSError as error:
            sys.exit(0)
        sys.exit("no error")"""
    children.python("-c", code, path)
    assert path.read_text() == "one\ntwo\n"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    with closing(files.LineFile(pipe)) as file:
        file.write(["text"])
    reader.join()
    assert read == ["text\n"] and stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_replaces_what_had_its_name(tmp_path, exists):
    partial, folder = tmp_path / ".model.partial", tmp_path / "model"
    (partial / "inside").mkdir(parents=True)
    (partial / "inside" / "new").write_text("new")
    if exists:
        folder.mkdir()
        (folder / "old").write_text("old")
    files.commit_folder(partial, folder)
    assert names(tmp_path) == ["model"] and names(folder) == ["inside"]
    assert (folder / "inside" / "new").read_text() == "new"


def test_a_folder_is_removed_with_all_that_is_in_it(tmp_path):
    (tmp_path / "step-1" / "inside").mkdir(parents=True)
    files.remove_folder(tmp_path / "step-1")
    assert names(tmp_path) == []


def test_windows_syncs_files_but_opens_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "IS_WINDOWS", True)
    (tmp_path / "a").write_text("text")
    opened = []
    open_any = os.open
    monkeypatch.setattr(os, "open", lambda path, flags: opened.append((path, flags)) or open_any(path, flags))
    files.sync(tmp_path)
    assert opened == [(tmp_path / "a", os.O_RDWR)]


def test_the_module_needs_nothing_but_the_standard_library():
    code = "import runpy, sys; runpy.run_path(sys.argv[1]); assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code, files.__file__], check=True)
