"""Layout from the network and from lines alone, against the ground truth of rooms that neither has seen."""

import math

import pytest
import torch

import higan
from higan.conformance import check_scorer
from higan.errors import MissingWeightsError
from higan.rooms.dataset import sample_rooms
from higan.rooms.factors import factor_index
from higan.scorers.layout import LayoutScorer
from higan.scorers.lines import LinesScorer
from higan.scorers.loading import WEIGHTS
from higan.scorers.outline import CORNERS, axes, depth_edges, vanishing_point
from higan.scorers.rooms import Output, RoomsScorer, RoomsScorerNetwork

HELD_OUT = 10_000_000


@pytest.fixture(scope="module")
def rooms():
    return sample_rooms(range(HELD_OUT, HELD_OUT + 40), 96)


def truth(rooms, name):
    return rooms.factors[:, factor_index(name)]


def corners(rooms):
    names = [f"corner_{corner}_{axis}" for corner in CORNERS for axis in "xy"]
    return torch.stack([truth(rooms, name) for name in names], 1).unflatten(1, (4, 2))


def correlation(a, b):
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])


# ---- geometry -------------------------------------------------------------------------------------------------------


def test_straight_ahead_depth_vanishes_in_the_middle():
    zero = torch.zeros(1)
    assert torch.equal(axes(zero, zero)[0], torch.eye(3))
    assert torch.equal(vanishing_point(zero, zero, 1.2), torch.zeros(1, 2))


def test_looking_right_and_down_moves_it_left_and_up():
    x, y = vanishing_point(torch.tensor([0.3]), torch.tensor([-0.2]), math.pi / 2)[0]
    # With 90° the picture's half width is the distance to it.
    assert float(x) == pytest.approx(-math.tan(0.3) / math.cos(0.2))
    assert float(y) == pytest.approx(math.tan(0.2))


def test_axes_agree_with_the_renderer(rooms):
    """The corners of the ground truth are the projections of a box through these axes."""
    from higan.rooms.scene import sample_scenes

    scenes = sample_scenes(range(HELD_OUT, HELD_OUT + 40))
    width, height, depth = scenes.room.unbind(1)
    left, right = -width / 2 - scenes.camera[:, 0], width / 2 - scenes.camera[:, 0]
    top, bottom, ahead = height - scenes.camera[:, 1], -scenes.camera[:, 1], depth - scenes.camera[:, 2]
    points = [(left, top), (right, top), (right, bottom), (left, bottom)]
    points = torch.stack([torch.stack([x, y, ahead], 1) for x, y in points], 1)
    rays = points @ axes(scenes.yaw, scenes.pitch)
    expected = rays[..., :2] / rays[..., 2:] / torch.tan(scenes.fov / 2)[:, None, None]
    torch.testing.assert_close(corners(rooms), expected, atol=1e-4, rtol=1e-4)


def test_depth_edges_run_from_the_corners_to_the_border():
    wall = torch.tensor([[[-0.5, 0.5], [0.5, 0.5], [0.5, -0.5], [-0.5, -0.25]]])
    edges = depth_edges(wall, torch.zeros(1, 2))
    assert torch.equal(edges[:, :, 0], wall)
    torch.testing.assert_close(edges[0, :, 1], torch.tensor([[-1.0, 1.0], [1.0, 1.0], [1.0, -1.0], [-1.0, -0.5]]))


def test_depth_edges_of_a_wide_picture_run_to_its_sides():
    wall = torch.tensor([[[-1.5, 0.25], [1.5, 0.5], [0.5, -0.5], [-0.5, -0.25]]])
    edges = depth_edges(wall, torch.zeros(1, 2), height=100, width=200)
    expected = torch.tensor([[-2.0, 1 / 3], [2.0, 2 / 3], [1.0, -1.0], [-2.0, -1.0]])
    torch.testing.assert_close(edges[0, :, 1], expected)


def test_edges_of_corners_outside_the_picture_have_no_length():
    edges = depth_edges(torch.full((1, 4, 2), 1.5), torch.zeros(1, 2))
    assert torch.equal(edges[:, :, 0], edges[:, :, 1])


# ---- the network ----------------------------------------------------------------------------------------------------


def random_network():
    """A network whose last layer says, for every picture, what the test wants to hear."""
    said = {"view_yaw": 0.2, "camera_side": -0.1, "room_width": 4.0, "room_depth": 3.5}
    said |= {"corner_left_top_x": -0.5, "corner_left_top_y": 0.4, "corner_right_top_x": 0.3, "corner_right_top_y": 0.2}
    said |= {"corner_left_bottom_x": -0.5, "corner_left_bottom_y": -0.6}
    said |= {"corner_right_bottom_x": 0.3, "corner_right_bottom_y": -0.4}
    network = RoomsScorerNetwork(len(said))
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.copy_(torch.tensor(list(said.values())))
    return RoomsScorer(network, tuple(Output(name, "layout", "scale") for name in said))


def test_shape_follows_from_the_corners():
    scorer = LayoutScorer(random_network())
    images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    found = dict(zip((c.name for c in scorer.concepts), scorer.score(images)[1].tolist(), strict=True))
    expected = {"view_yaw": 0.2, "camera_side": -0.1, "room_width": 4.0, "room_depth": 3.5}
    expected |= {"back_wall_width": 0.4, "back_wall_height": 0.4, "floor_line": -0.5, "ceiling_line": 0.3}
    assert found == pytest.approx(expected, abs=1e-6)
    assert {c.level for c in scorer.concepts} == {"layout"}
    outline = [[-0.5, 0.4], [0.3, 0.2], [0.3, -0.4], [-0.5, -0.6]]
    torch.testing.assert_close(scorer.outline(images)[0], torch.tensor(outline))
    edges = scorer.edges(images)[0]
    torch.testing.assert_close(edges[:, 0], torch.tensor(outline))
    # They lie on lines through the point where depth vanishes.
    away = edges - vanishing_point(torch.tensor(0.2), torch.tensor(-0.13), 1.2)
    cross = away[:, 0, 0] * away[:, 1, 1] - away[:, 0, 1] * away[:, 1, 0]
    assert cross.abs().max() < 1e-5


def test_a_scorer_without_corners_is_refused():
    network = RoomsScorer(RoomsScorerNetwork(1), (Output("view_yaw", "layout", "scale"),))
    with pytest.raises(ValueError, match="does not predict camera_side, room_width"):
        LayoutScorer(network)


def test_missing_weights_are_told(tmp_path):
    with pytest.raises(MissingWeightsError, match="no weight file"):
        higan.load_scorer("layout", weights=tmp_path / "x.safetensors")


@pytest.mark.skipif(not (WEIGHTS / "rooms.safetensors").is_file(), reason="the embedded weights are not there yet")
def test_network_knows_rooms_it_has_not_seen(rooms):
    scorer = higan.load_scorer("layout")
    scores = dict(zip((c.name for c in scorer.concepts), scorer.score(rooms.images).unbind(1), strict=True))
    for concept, factor, least in (
        ("view_yaw", "yaw", 0.97),
        ("camera_side", "camera_x", 0.93),
        ("room_width", "room_width", 0.75),
        ("room_depth", "room_depth", 0.7),
    ):
        assert correlation(scores[concept], truth(rooms, factor)) > least, concept
    wall = corners(rooms)
    seen = (wall.abs() < 1).all(-1)
    away = (scorer.outline(rooms.images) - wall).norm(dim=-1)
    assert float(away[seen].median()) < 0.06


# ---- lines ----------------------------------------------------------------------------------------------------------


def test_lines_know_the_yaw_without_having_learned_anything(rooms):
    view = LinesScorer().view(rooms.images)
    yaw = truth(rooms, "yaw")
    assert correlation(view.yaw, yaw) > 0.95
    assert float((view.yaw - yaw).abs().median()) < 0.03
    wall = corners(rooms)
    seen = (wall.abs() < 1).all(-1)
    assert float((view.corners - wall).norm(dim=-1)[seen].median()) < 0.12


def drawn_room(yaw, pitch, wall, field_of_view=1.2, side=512):
    """White lines on black: a box seen from inside, drawn edge by edge."""
    frame = axes(torch.tensor(yaw), torch.tensor(pitch))
    left, right, bottom, top = wall
    image = torch.zeros(side, side)
    points = [(left, top), (right, top), (right, bottom), (left, bottom)]
    ends = [((*a, 1.0), (*b, 1.0)) for a, b in zip(points, points[1:] + points[:1], strict=True)]
    ends += [((*p, 1.0), (*p, 0.3)) for p in points]
    for a, b in ends:
        share = torch.linspace(0, 1, 4000)[:, None]
        rays = (torch.tensor(a) * (1 - share) + torch.tensor(b) * share) @ frame
        rays = rays[rays[:, 2] > 0.05]
        place = rays[:, :2] / rays[:, 2:] / math.tan(field_of_view / 2)
        place = place[(place.abs() < 1).all(1)]
        x, y = ((place[:, 0] + 1) / 2 * side).long(), ((1 - place[:, 1]) / 2 * side).long()
        image[y.clamp(max=side - 1), x.clamp(max=side - 1)] = 1
    # Thick lines averaged down, as a camera would see them: staircases have directions of their own.
    thick = torch.nn.functional.avg_pool2d(torch.nn.functional.max_pool2d(image[None, None], 7, 1, 3), 4)
    return (thick * 255).to(torch.uint8).expand(1, 3, -1, -1).clone()


@pytest.mark.parametrize("yaw", [-0.15, 0.0, 0.1])
@pytest.mark.parametrize("pitch", [-0.15, 0.1])
def test_a_drawn_box_is_read_back(yaw, pitch):
    wall = (-0.4, 0.35, -0.3, 0.25)
    view = LinesScorer().view(drawn_room(yaw, pitch, wall))
    assert float(view.yaw) == pytest.approx(yaw, abs=0.03)
    assert float(view.pitch) == pytest.approx(pitch, abs=0.03)
    torch.testing.assert_close(view.wall[0], torch.tensor(wall), atol=0.07, rtol=0)


def test_side_follows_from_the_wall():
    scorer = LinesScorer()
    score = scorer.score(drawn_room(0.0, 0.0, (-0.6, 0.2, -0.35, 0.3)))[0]
    found = dict(zip((c.name for c in scorer.concepts), score.tolist(), strict=True))
    # The wall spans 0.8 from -0.6: its middle is 0.2 to the left of the camera.
    assert found["camera_side"] == pytest.approx(0.2 / 0.8, abs=0.06)
    assert found["distance_to_height"] == pytest.approx(1 / 0.65, abs=0.15)
    assert scorer.edges(drawn_room(0.0, 0.0, (-0.6, 0.2, -0.35, 0.3))).shape == (1, 4, 2, 2)


@pytest.mark.parametrize("size", [(64, 64), (50, 90), (120, 70)])
def test_pictures_without_lines_look_straight_ahead(size):
    view = LinesScorer().view(torch.full((2, 3, *size), 90, dtype=torch.uint8))
    assert view.yaw.abs().max() < 0.05
    assert torch.isfinite(view.corners).all()


def test_mirrored_rooms_mirror_the_yaw(rooms):
    images = rooms.images[:8]
    view, other = LinesScorer().view(images), LinesScorer().view(images.flip(3))
    assert float((view.yaw + other.yaw).abs().median()) < 0.01


def test_lines_keep_the_contract(rooms):
    assert not [f for f in check_scorer(LinesScorer(), rooms.images[:4]) if not f.ok]
    with pytest.raises(ValueError, match="between 0 and π"):
        higan.load_scorer("lines", field_of_view=4.0)
