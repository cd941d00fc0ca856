"""A bundle that travels as its files."""

from pneumonia_core.bundles.writer import read_files, write_files


def test_a_bundle_that_was_written_elsewhere_arrives_whole_and_replaces_none(tiny_bundle, tmp_path):
    files = read_files(tiny_bundle)
    first, second = (write_files(tmp_path, tiny_bundle.path.name, files) for _ in range(2))
    assert first.model_id == second.model_id == tiny_bundle.model_id
    assert read_files(first) == read_files(second) == files
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([first.path.name, second.path.name])
    assert (first.path.name, second.path.name) == (tiny_bundle.path.name, f"{tiny_bundle.path.name}-2")
