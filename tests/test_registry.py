"""The registry."""

from __future__ import annotations

import importlib.metadata

import pytest

from mmfusion import registry
from mmfusion.names import natural_key


def test_natural_order():
    assert sorted(["r101", "r18", "r50", "a2"], key=natural_key) == ["a2", "r18", "r50", "r101"]


def test_the_same_part_may_be_registered_again():
    def part() -> None: ...

    with registry.temporarily():
        assert registry.register("loss", "again")(part) is part
        assert registry.register("loss", "again")(part) is part
        assert registry.get("loss", "again") is part


def test_unknown_names_without_a_near_one_list_all():
    with pytest.raises(ValueError, match=r"known: .*ce"):
        registry.get("loss", "zzzzzz")


@pytest.mark.parametrize("kind", registry.KINDS)
def test_every_kind_can_be_listed(kind):
    assert registry.names(kind) == sorted(registry.names(kind), key=natural_key)


def test_unregistered_names_are_free_again():
    with registry.temporarily():
        registry.register("head", "mine")(object)
        registry.unregister("head", "mine")
        assert "mine" not in registry.names("head")
        registry.register("head", "mine")(dict)
    with pytest.raises(ValueError, match="Unknown head 'mine'"):
        registry.unregister("head", "mine")


def test_what_is_registered_temporarily_is_gone_and_what_was_removed_is_back():
    before = {kind: registry.names(kind) for kind in registry.KINDS}
    with registry.temporarily():
        registry.register("metric", "mine")(object())
        registry.unregister("loss", "ce")
        assert "mine" in registry.names("metric") and "ce" not in registry.names("loss")
    assert {kind: registry.names(kind) for kind in registry.KINDS} == before
    registry.create("loss", "ce")


def test_a_name_that_is_taken_names_its_owner():
    with pytest.raises(ValueError, match=r"taken by mmfusion\.losses\.classification\.CrossEntropy; choose another"):
        registry.register("loss", "ce")(dict)


class TestPlugins:
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path, monkeypatch):
        monkeypatch.syspath_prepend(tmp_path)
        registry._load_entry_points.cache_clear()
        with registry.temporarily():
            yield
        registry._load_entry_points.cache_clear()

    def write(self, tmp_path, name, code):
        (tmp_path / f"{name}.py").write_text(f"from mmfusion import register\n{code}\n")

    def test_the_module_that_brought_a_part_is_known(self, tmp_path):
        self.write(tmp_path, "brings_a_loss", "@register('loss', 'brought')\nclass Loss: ...")
        registry.load_plugins(["brings_a_loss"])
        assert registry.origin("loss", "brought") == "brings_a_loss"
        assert registry.origin("loss", "ce") is None

    def test_an_object_belongs_to_the_module_that_registers_it(self, tmp_path):
        self.write(tmp_path, "brings_a_metric", "from fractions import Fraction\nregister('metric', 'm')(Fraction(1))")
        registry.load_plugins(["brings_a_metric"])
        assert registry.origin("metric", "m") == "brings_a_metric"

    @pytest.mark.parametrize(
        ("plugin", "error", "message"),
        [
            (
                "no_such_plugin",
                ValueError,
                "'no_such_plugin' does not exist; install it, or add its folder to PYTHONPATH",
            ),
            ("no_such.plugin", ValueError, "'no_such.plugin' does not exist"),
            (
                "folder/fus.py",
                ValueError,
                "'folder/fus.py' is not a module name; write fus, and set PYTHONPATH=folder ",
            ),
            ("fus.py", ValueError, r"'fus.py' is not a module name; write fus, and set PYTHONPATH=\. so that"),
            ("folder/plugin", ValueError, "'folder/plugin' is not a module name"),
            (
                "needs_another",
                ImportError,
                "importing 'needs_another' failed: ModuleNotFoundError: .*'no_such_library'",
            ),
            ("raises", ImportError, "importing 'raises' failed: ZeroDivisionError"),
        ],
    )
    def test_a_plugin_that_cannot_be_imported_is_told_in_one_line(self, tmp_path, plugin, error, message):
        self.write(tmp_path, "needs_another", "import no_such_library")
        self.write(tmp_path, "raises", "1 / 0")
        with pytest.raises(error, match=message) as caught:
            registry.load_plugins([plugin])
        assert "\n" not in str(caught.value)

    def offer(self, monkeypatch, *modules):
        entries = [importlib.metadata.EntryPoint(name, name, registry.GROUP) for name in modules]
        asked = []
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: asked.append(group) or entries)
        return asked

    def test_installed_plugins_are_imported_only_when_a_name_is_unknown(self, tmp_path, monkeypatch):
        self.write(tmp_path, "installed", "@register('loss', 'from_an_entry_point')\nclass Loss: ...")
        asked = self.offer(monkeypatch, "installed")
        registry.create("loss", "ce")
        assert asked == []
        assert registry.get("loss", "from_an_entry_point").__module__ == "installed"
        assert asked == [registry.GROUP]
        assert registry.origin("loss", "from_an_entry_point") == "installed"

    def test_a_broken_installed_plugin_is_named_where_a_name_stays_unknown(self, tmp_path, monkeypatch):
        self.write(tmp_path, "broken_plugin", "1 / 0")
        self.offer(monkeypatch, "broken_plugin")
        with pytest.raises(ValueError, match=r"did you mean 'ce'.*'broken_plugin' of mmfusion\.parts failed: ZeroDiv"):
            registry.get("loss", "cee")
        registry.create("loss", "ce")
