"""Pictures of the maze (Fig. 7), by Pillow, which comes with the extra `viz`."""

from keras import ops

from keras_mnm.files import replacing

_SCALE = 32
_WALL, _FREE, _GOAL, _AGENT, _TRAIL = "#35424a", "#f5f2ea", "#e0a526", "#c2453c", "#e3c3b8"


def maze_picture(maze, path, goal, agent=None):
    """Draws a maze into a PNG file.

    Args:
        maze: A `Maze`.
        path: The PNG file.
        goal: The goal's cell.
        agent: The agent's cell. Defaults to the center, where it starts.

    Example:

    >>> import pathlib, tempfile
    >>> from keras_mnm.rl import Maze, pictures
    >>> maze, folder = Maze(), pathlib.Path(tempfile.mkdtemp())
    >>> pictures.maze_picture(maze, folder / "maze.png", goal=maze.free_cells[0])
    """
    agent = maze.center if agent is None else agent
    with replacing(path) as temporary:
        caption = f"{maze.size} x {maze.size} cells"
        frame(maze, goal, [agent], caption).save(temporary)


def episode_animation(maze, episodes, path, index=0, milliseconds=80):
    """Draws an episode into an animated GIF file, with the agent as it was before each step.

    The last picture has the whole reward, and the agent still before the last step.

    Args:
        maze: A `Maze`.
        episodes: A `keras_mnm.rl.Rollout`.
        path: The GIF file.
        index: Which of the episodes. Defaults to `0`.
        milliseconds: How long a step is shown. Defaults to `80`.

    Example:

    >>> import pathlib, tempfile
    >>> from keras_mnm.rl import Maze, draw_chance, pictures, rollout
    >>> maze, folder = Maze(), pathlib.Path(tempfile.mkdtemp())
    >>> episodes = rollout(None, maze, draw_chance(0, batch_size=1, steps=20))
    >>> pictures.episode_animation(maze, episodes, folder / "episode.gif")
    """
    agents = ops.convert_to_numpy(episodes.agents)[index].tolist()
    rewards = ops.convert_to_numpy(episodes.rewards)[index].cumsum().tolist()
    goal = int(ops.convert_to_numpy(episodes.goals)[index])
    frames = [
        frame(maze, goal, agents[max(0, t - 3) : t + 1], f"step {t}   reward {earned:.1f}")
        for t, earned in enumerate([0.0, *rewards])
    ]
    with replacing(path) as temporary:
        frames[0].save(
            temporary, save_all=True, append_images=frames[1:], duration=milliseconds, loop=0
        )


def frame(maze, goal, trail, caption=""):
    """The maze as a `PIL.Image`, with the agent in the last cell of its trail.

    Args:
        maze: A `Maze`.
        goal: The goal's cell.
        trail: List of cells, the agent's and before it those where it was.
        caption: What to write below. Defaults to nothing.

    Example:

    >>> from keras_mnm.rl import Maze, pictures
    >>> maze = Maze()
    >>> pictures.frame(maze, goal=12, trail=[maze.center]).size
    (352, 352)
    """
    from PIL import Image, ImageDraw, ImageFont

    goal, trail = int(goal), [int(cell) for cell in trail]
    missing = {goal, *trail} - set(maze.free_cells.tolist())
    if not trail:
        raise ValueError("`trail` must have the agent's cell. Received none.")
    if missing:
        raise ValueError(
            "The goal and the agent's cells must be free cells of the maze, `maze.free_cells`. "
            f"Received {sorted(missing)} in a maze of {maze.size} rows and columns."
        )
    side = maze.size * _SCALE
    image = Image.new("RGB", (side, side + _SCALE * 3 // 2 * bool(caption)), "white")
    draw = ImageDraw.Draw(image)

    def corners(cell, margin):
        row, column = divmod(cell, maze.size)
        x, y = column * _SCALE, row * _SCALE
        return [x + margin, y + margin, x + _SCALE - 1 - margin, y + _SCALE - 1 - margin]

    for cell, wall in enumerate(maze.walls.ravel()):
        draw.rectangle(corners(cell, 0), _WALL if wall else _FREE)
    draw.rectangle(corners(goal, 5), _GOAL)
    for cell in trail[:-1]:
        draw.ellipse(corners(cell, 11), _TRAIL)
    draw.ellipse(corners(trail[-1], 7), _AGENT)
    if caption:
        font = ImageFont.load_default(13)
        draw.text((6, side + 4), caption, "black", font)
        legend = side + _SCALE * 3 // 4
        draw.rectangle([6, legend + 3, 16, legend + 13], _GOAL)
        draw.text((20, legend), "goal", "black", font)
        draw.ellipse([62, legend + 3, 72, legend + 13], _AGENT)
        draw.text((76, legend), "agent", "black", font)
    return image
