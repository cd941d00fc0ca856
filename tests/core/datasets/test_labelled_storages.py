"""Labelled sets in folders, buckets, tars and zips, and tables that name images in any of them."""

import pytest
from support.buckets import BUCKET, s3_server, using
from support.images.archived import tar_bytes, zip_bytes

from pneumonia_core.archives.archive import read_image_bytes
from pneumonia_core.datasets.labelled import read_labelled
from pneumonia_core.datasets.split import split_training
from pneumonia_core.errors import InvalidInput
from pneumonia_core.phantoms.data_sets import write_labelled
from pneumonia_core.storage.s3 import client as s3_client


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelled") / "xrays"
    write_labelled(folder, 8, 1, seed=4)
    return folder


@pytest.fixture(scope="module")
def files(local):
    return {str(path.relative_to(local)): path.read_bytes() for path in sorted(local.rglob("*.jpeg"))}


@pytest.fixture(scope="module")
def bucket(files):
    """The same images as objects, as a tar and as a zip."""
    with s3_server() as endpoint, using(endpoint):
        client = s3_client.client()
        client.create_bucket(Bucket=BUCKET)
        for name, data in files.items():
            client.put_object(Bucket=BUCKET, Key=f"xrays/{name}", Body=data)
        client.put_object(Bucket=BUCKET, Key="xrays.tar", Body=tar_bytes(files))
        client.put_object(Bucket=BUCKET, Key="xrays.zip", Body=zip_bytes(files))
        yield f"s3://{BUCKET}"


def labels(images, root):
    return [(image.uri.removeprefix(root), image.label, image.patient_id, image.split) for image in images]


def assert_same(data, root, local):
    expected, read = read_labelled(str(local)), read_labelled(str(data))
    assert labels(read, root) == labels(expected, f"file://{local}/")
    for part, other in zip(split_training(read), split_training(expected), strict=True):
        assert labels(part, root) == labels(other, f"file://{local}/")
    for image, other in zip(read, expected, strict=True):
        assert read_image_bytes(image.ref) == read_image_bytes(other.ref)


def test_set_in_a_bucket_has_the_labels_patients_and_splits_of_the_folder(bucket, local):
    assert_same(f"{bucket}/xrays", f"{bucket}/xrays/", local)


@pytest.mark.parametrize("name", ["xrays.tar", "xrays.zip"])
def test_set_in_a_tar_or_zip_has_the_labels_patients_and_splits_of_the_folder(bucket, local, name):
    assert_same(f"{bucket}/{name}", f"{bucket}/{name}!/", local)


def test_set_in_a_zip_of_windows_without_a_suffix_has_them_too(local, files, tmp_path):
    path = tmp_path / "xrays-2026"
    path.write_bytes(zip_bytes({name.replace("/", "\\"): data for name, data in files.items()}))
    expected, read = read_labelled(str(local)), read_labelled(str(path))
    assert [image.uri.rpartition("!/")[2].replace("\\", "/") for image in read] == [
        image.uri.removeprefix(f"file://{local}/") for image in expected
    ]
    assert [(image.label, image.patient_id, image.split) for image in read] == [
        (image.label, image.patient_id, image.split) for image in expected
    ]


def test_zip_as_it_is_published_is_read_without_its_second_copy(local, files, tmp_path):
    published = {f"chest_xray/{name}": data for name, data in files.items()}
    copies = {f"chest_xray/chest_xray/{name}": data for name, data in files.items()}
    hidden = {f"__MACOSX/chest_xray/{name}": b"" for name in files}
    (tmp_path / "a.zip").write_bytes(zip_bytes({**copies, **hidden, **published}))
    assert_same(tmp_path / "a.zip", f"file://{tmp_path}/a.zip!/chest_xray/", local)


def test_table_names_files_objects_and_members(bucket, local, files, tmp_path):
    (tmp_path / "x.zip").write_bytes(zip_bytes(files))
    names = list(files)[:4]
    uris = [
        f"{local}/{names[0]}",
        f"{bucket}/xrays/{names[1]}",
        f"{bucket}/xrays.tar!/{names[2]}",
        f"x.zip!/{names[3]}",
    ]
    rows = "".join(f"{uri},viral,p{number},test\n" for number, uri in enumerate(uris))
    (tmp_path / "labels.csv").write_text(f"uri,label,patient_id,split\n{rows}")
    read = {image.patient_id: image for image in read_labelled(str(tmp_path / "labels.csv"))}
    assert [read[f"p{number}"].uri for number in range(4)] == [
        f"file://{uris[0]}",
        uris[1],
        uris[2],
        f"file://{tmp_path}/{uris[3]}",
    ]
    assert [read_image_bytes(read[f"p{number}"].ref) for number in range(4)] == [
        files[name] for name in names
    ]


def test_zip_that_was_cut_is_refused(files, tmp_path):
    whole = zip_bytes(files)
    (tmp_path / "a.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidInput, match=r"a\.zip: some of it cannot be read"):
        read_labelled(str(tmp_path / "a.zip"))


@pytest.mark.parametrize("name", ["absent", "absent.zip", "absent.csv"])
def test_set_that_a_bucket_does_not_have_is_refused(bucket, name):
    with pytest.raises(InvalidInput, match=name):
        read_labelled(f"{bucket}/{name}")
