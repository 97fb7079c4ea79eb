"""Fetching file by file from a pretend S3 that pages, refuses, breaks off, stalls and lies."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from fetching import transfer
from fetching.bucket import Object
from tests.fetching.s3 import (
    ACCESS_DENIED,
    BOXES,
    BUCKET,
    BUS,
    SEMANTIC,
    SLOW_DOWN,
    Answer,
    Fault,
    Place,
    checksum_lines,
    cut,
    flipped,
    make_bucket,
    other_etag,
    replaced,
    shorter,
    stalled,
)

CAMERA = "/camera/cam_front_center/"  # part of the addresses of camera files
LISTING = "list-type=2"


def listings_of(place: Place) -> list[str]:
    return [path for path in place.proxy.asked if LISTING in path]


def assert_complete(place: Place, *parts: str) -> None:
    assert place.there() == place.expected(*parts)


def camera_keys(place: Place) -> list[str]:
    return [key for key in place.files if key.startswith(BOXES) and CAMERA in key and key.endswith(".png")]


# ---- the good way -------------------------------------------------------------------------------------------------


def test_the_front_center_files_of_boxes_and_bus_are_fetched_and_arranged(place: Place) -> None:
    done = place.run()
    assert done.returncode == 0, done.stderr
    assert_complete(place, BOXES, BUS)
    assert len(place.raw.frames("camera")) == len(place.raw.frames("label3D")) == 4
    assert place.raw.calibration_path.is_file()
    assert len(place.raw.bus_paths()) == 2
    assert "25 files fetched" in done.stdout


def test_what_was_found_is_said(place: Place) -> None:
    shown = place.run("--dry-run").stdout
    assert f"s3://{BUCKET}/{BOXES}/: 2 scenes with camera, label, label3D, lidar\n" in shown
    assert f"s3://{BUCKET}/{BUS}/: 2 scenes with bus\n" in shown
    assert f"s3://{BUCKET}/camera_lidar/: 1 scenes with bus, camera; not taken\n" in shown


def test_a_dry_run_names_bucket_files_and_bytes_and_fetches_nothing(place: Place) -> None:
    done = place.run("--dry-run")
    assert done.returncode == 0, done.stderr
    assert f"from s3://{BUCKET}/{BOXES}/: 20 files" in done.stdout
    assert "would fetch 25 files" in done.stdout
    assert place.proxy.objects_asked() == []
    assert not place.dest.exists()


def test_only_semantic(place: Place) -> None:
    done = place.run("--only", "semantic")
    assert done.returncode == 0, done.stderr
    assert_complete(place, SEMANTIC)
    assert not place.raw.images_dir.exists()


@pytest.mark.parametrize("folder", ["camera_lidar_semantic_boxes_2026", "a2d2/boxes"])
def test_the_boxes_are_found_under_another_name(place: Place, folder: str) -> None:
    make_bucket(BUCKET, {key.replace(BOXES, folder): content for key, content in place.files.items()})
    done = place.run("--only", "bboxes")
    assert done.returncode == 0, done.stderr
    assert_complete(place, BOXES)


def test_bus_files_beside_the_labels_are_found(place: Place) -> None:
    make_bucket(BUCKET, {key.replace(f"{BUS}/", f"{BOXES}/"): content for key, content in place.files.items()})
    assert place.run().returncode == 0
    assert_complete(place, BOXES, BUS)


def test_a_bucket_without_boxes_says_what_it_has(place: Place) -> None:
    make_bucket(BUCKET, {key: content for key, content in place.files.items() if not key.startswith(BOXES)})
    done = place.run("--only", "bboxes")
    assert done.returncode == 2
    assert f"holds nothing of bboxes; its folders of scenes are camera_lidar/ (bus, camera), {SEMANTIC}/" in done.stderr


def test_one_scene(place: Place) -> None:
    scene = camera_keys(place)[0].split("/")[1]
    assert place.run("--scenes", scene).returncode == 0
    assert place.raw.scenes() == [scene]
    assert list(place.raw.bus_paths()) == [scene]
    assert len(place.raw.frames("camera")) == 2


def test_a_scene_that_is_not_there(place: Place) -> None:
    done = place.run("--scenes", "20110101_000000")
    assert done.returncode == 2
    assert "20110101_000000 not found; there are 2018" in done.stderr


def test_all_cameras(place: Place) -> None:
    assert place.run("--all-cameras", "--only", "bboxes").returncode == 0
    assert len(list(place.dest.rglob("*/cam_front_left/*.png"))) == 4


def test_a_second_run_fetches_nothing(place: Place) -> None:
    place.run()
    place.proxy.asked.clear()
    done = place.run()
    assert done.returncode == 0
    assert place.proxy.objects_asked() == []
    assert "25 files are there" in done.stdout


def test_paging_over_a_thousand_keys(place: Place) -> None:
    scene = camera_keys(place)[0].split("/")[1]
    stem = f"{BOXES}/{scene}{CAMERA}{scene.replace('_', '')}_camera_frontcenter_"
    make_bucket(BUCKET, place.files | {f"{stem}{100_000_000 + number}.png": b"" for number in range(2345)})
    done = place.run("--dry-run", "--only", "bboxes")
    assert f"{BOXES}/: {20 + 2345} files" in done.stdout, done.stderr
    tokens = [path for path in listings_of(place) if "continuation-token" in path]
    assert len(tokens) >= 2


def test_names_that_are_not_the_sets_are_left_out(place: Place) -> None:
    scene = camera_keys(place)[0].split("/")[1]
    odd = ["evil.sh", "20180101000000_camera_frontcenter_000000001.png", "x/y.png"]
    make_bucket(BUCKET, place.files | {f"{BOXES}/{scene}{CAMERA}{name}": b"x" for name in odd})
    done = place.run()
    assert "3 files have none of the set's names" in done.stdout
    assert_complete(place, BOXES, BUS)


# ---- an unwilling server ------------------------------------------------------------------------------------------


def test_access_denied_is_told_by_the_exit_code(place: Place) -> None:
    place.proxy.faults.append(Fault(LISTING, replaced(403, ACCESS_DENIED)))
    done = place.run()
    assert done.returncode == 3
    assert f"s3://{BUCKET}: access denied" in done.stderr
    assert not place.dest.exists()


def test_a_missing_bucket_is_told_by_the_exit_code(place: Place) -> None:
    done = place.run("--bucket", "moved-again")
    assert done.returncode == 3
    assert "s3://moved-again: there is no such bucket" in done.stderr


def test_a_server_that_is_not_there(place: Place) -> None:
    done = place.run(A2D2_S3_ENDPOINT="http://127.0.0.1:1")
    assert done.returncode == 2
    assert "can't be read" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault(CAMERA, cut, times=5),
        Fault(CAMERA, shorter, times=5),
        Fault(CAMERA, flipped, times=5),
        Fault(CAMERA, other_etag, times=3),
        Fault(CAMERA, replaced(503, SLOW_DOWN), times=7),
        Fault(CAMERA, replaced(200, b"<html>log in</html>"), times=3),
        Fault(LISTING, replaced(503, SLOW_DOWN), times=7),
        Fault(LISTING, cut, times=3),
        Fault(LISTING, shorter, times=3),
        Fault(LISTING, replaced(200, b"<html>log in</html>"), times=3),
    ],
    ids=lambda fault: f"{fault.spoil.__name__}-{'listing' if fault.where == LISTING else 'file'}",
)
def test_a_fault_that_passes_is_tried_again(place: Place, fault: Fault) -> None:
    place.proxy.faults.append(replace(fault))
    done = place.run()
    assert done.returncode == 0, done.stderr
    assert_complete(place, BOXES, BUS)


def test_a_transfer_that_stalls_is_broken_off_and_tried_again(place: Place) -> None:
    place.proxy.faults.append(Fault(CAMERA, stalled, times=2))
    done = place.run(GET_DATA_PATIENCE="1")
    assert done.returncode == 0, done.stderr
    assert_complete(place, BOXES, BUS)


def test_a_page_that_claims_to_be_the_last_one(place: Place) -> None:
    """A listing cut between two pages, its answers well formed: nothing tells but asking on."""
    scene = camera_keys(place)[0].split("/")[1]
    stem = f"{BOXES}/{scene}{CAMERA}{scene.replace('_', '')}_camera_frontcenter_"
    make_bucket(BUCKET, place.files | {f"{stem}{100_000_000 + number}.png": b"" for number in range(1500)})

    def ended(answer: Answer) -> None:
        answer.body = re.sub(rb"<NextContinuationToken>.*?</NextContinuationToken>", b"", answer.body)

    place.proxy.faults.append(Fault(LISTING, ended))
    done = place.run("--dry-run", "--only", "bboxes")
    assert f"{BOXES}/: {20 + 1500} files" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (cut, "body"),
        (shorter, "bytes came instead of"),
        (flipped, "md5 is"),
        (other_etag, "the server sends ETag"),
        (replaced(503, SLOW_DOWN), "503"),
        (replaced(403, ACCESS_DENIED), "access denied"),
        (replaced(404, b""), "no longer has it"),
    ],
)
def test_a_file_that_always_fails_is_named_and_the_rest_is_fetched(
    place: Place, spoil: Callable[[Answer], Answer | None], told: str
) -> None:
    bad = camera_keys(place)[1]
    place.proxy.faults.append(Fault(bad, spoil))
    done = place.run()
    assert done.returncode == 1
    assert re.search(rf"failed: {bad}: .*{told}", done.stderr), done.stderr
    assert "24 files fetched" in done.stdout
    expected = place.expected(BOXES, BUS)
    del expected[place.raw.images_dir / bad.removeprefix(f"{BOXES}/")]
    assert place.there() == expected
    place.proxy.faults.clear()
    assert place.run().returncode == 0
    assert_complete(place, BOXES, BUS)


def test_a_bucket_that_lists_but_refuses_every_file_is_given_up(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "HOPELESS", 5)
    place.proxy.faults.append(Fault(f"/{BUCKET}/", replaced(403, ACCESS_DENIED)))
    bucket, plan = place.bucket_and_plan()
    with pytest.raises(transfer.UserError, match="the first 5 files all failed"):
        transfer.fetch_all(bucket, plan.files, {}, transfers=2)
    assert len(place.proxy.objects_asked()) < len(plan.files)


def test_a_file_that_changes_after_it_was_listed_is_named(place: Place) -> None:
    bucket, plan = place.bucket_and_plan()
    key = camera_keys(place)[0]
    make_bucket(BUCKET, place.files | {key: b"another picture"})
    summary = transfer.fetch_all(bucket, plan.files, {}, transfers=4)
    assert summary.failed == {key: "the server's file has changed since it was listed; run again"}


# ---- checksums ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("algorithm", "mark"), [("md5", "  "), ("sha1", " *"), ("sha256", "  ./")])
def test_checksum_files_of_every_kind(place: Place, algorithm: str, mark: str) -> None:
    listed = checksum_lines(place.files, algorithm, mark)
    make_bucket(BUCKET, place.files | {"CHECKSUMS.txt": listed})
    done = place.run("--checksums")
    assert done.returncode == 0, done.stderr
    assert "names none" not in done.stdout
    assert_complete(place, BOXES, BUS)


def test_a_file_that_does_not_fit_its_checksum_is_named(place: Place) -> None:
    key = camera_keys(place)[0]
    wrong = hashlib.sha256(b"something else").hexdigest()
    lines = checksum_lines({k: v for k, v in place.files.items() if k != key}, "sha256") + f"{wrong}  {key}\n".encode()
    make_bucket(BUCKET, place.files | {"CHECKSUMS.txt": lines})
    done = place.run("--checksums")
    assert done.returncode == 1
    assert re.search(rf"failed: {key}: sha256 is \w+ instead of {wrong}", done.stderr)
    assert not (place.raw.images_dir / key.removeprefix(f"{BOXES}/")).exists()


def test_a_file_that_the_listing_lacks_is_named(place: Place) -> None:
    missing = camera_keys(place)[0].replace("_0000", "_9999")
    lines = checksum_lines(place.files | {missing: b"x"}, "md5")
    make_bucket(BUCKET, place.files | {"CHECKSUMS.txt": lines})
    done = place.run("--checksums")
    assert done.returncode == 1
    assert f"failed: {missing}: CHECKSUMS.txt names it, the bucket's listing does not" in done.stderr


def test_an_etag_that_is_no_md5_asks_for_the_checksum_file(place: Place) -> None:
    key = camera_keys(place)[0]

    def in_parts(answer: Answer) -> None:
        md5 = hashlib.md5(place.files[key]).hexdigest()
        answer.body = answer.body.replace(md5.encode(), b"0" * 32 + b"-2")
        answer.headers = {n: v.replace(md5, "0" * 32 + "-2") for n, v in answer.headers.items()}

    make_bucket(BUCKET, place.files | {"CHECKSUMS.txt": checksum_lines(place.files, "sha256")})
    place.proxy.faults.append(Fault("", in_parts))
    _, plan = place.bucket_and_plan()
    assert [wanted.object.key for wanted in plan.files if wanted.object.md5 is None] == [key]
    done = place.run("--dry-run")
    assert "and CHECKSUMS.txt to check them" in done.stdout


def test_verify_finds_a_file_that_was_altered_and_puts_it_aside(place: Place) -> None:
    place.run()
    path = place.raw.images_dir / camera_keys(place)[0].removeprefix(f"{BOXES}/")
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert "0 files fetched" in place.run().stdout  # the size fits
    done = place.run("--verify")
    assert "1 files fetched" in done.stdout
    assert path.read_bytes() == content
    aside = path.with_name(f"{path.name}.aside")
    assert f"it is now {aside}" in done.stdout
    assert aside.exists()


def test_a_file_of_another_size_is_put_aside(place: Place) -> None:
    path = place.raw.images_dir / camera_keys(place)[0].removeprefix(f"{BOXES}/")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"somebody's own")
    assert place.run().returncode == 0
    assert path.with_name(f"{path.name}.aside").read_bytes() == b"somebody's own"
    assert len(place.raw.frames("camera")) == 4


def test_objects_know_whether_their_etag_is_an_md5() -> None:
    assert Object("a", 1, "0" * 32).md5 == "0" * 32
    for etag in (None, "", "0" * 32 + "-2", "0" * 31, "G" * 32):
        assert Object("a", 1, etag).md5 is None
