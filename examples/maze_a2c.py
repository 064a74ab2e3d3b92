"""Maze exploration (§4.3, Fig. 6 and 7): learn to remember where the goal is, by rewards alone.

python examples/maze_a2c.py
python examples/maze_a2c.py --model lstm --episodes 100000 --backend jax
python examples/maze_a2c.py --evaluate maze-mnm-p --episodes 10000 --seed 1
"""

import json
import pathlib

import experiment
from command_line import (
    MAZE_MODELS,
    SCHEDULE,
    Parser,
    add_backend_option,
    add_run_options,
    check_installed,
    check_writable,
    non_negative_float,
    non_negative_int,
    positive_float,
    positive_int,
    use_backend,
)

STEPS_PER_EPOCH = 10
"""Updates between two checkpoints."""

EPISODES = {"training": 100_000, "evaluation": 1000}


class MazeTask(experiment.Task):
    name = "maze"
    title = "the maze"

    def instance_of(self, model):
        from keras_mnm import rl

        maze = rl.Maze()
        if not isinstance(model, rl.ActorCritic) or model.num_actions != maze.num_actions:
            raise ValueError(f"expected a keras_mnm.rl.ActorCritic of the maze, received {model!r}")
        size = model.get_build_config()["observations_shape"][-1] if model.built else None
        if size not in (None, maze.observation_size):
            raise ValueError(
                f"expected a model of the maze's {maze.observation_size} numbers a step, received "
                f"one of {size}; evaluate it by keras_mnm.rl.total_rewards with its own Maze"
            )
        return {}

    def measure(self, model, args):
        return measure(model, args.episodes or EPISODES["evaluation"], args.seed)


TASK = MazeTask()


def measure(model, episodes, seed):
    """The rewards of a model, or of random steps where it is None, on fresh episodes."""
    from keras_mnm import rl

    rewards = rl.total_rewards(model, rl.Maze(), episodes, seed)
    return {
        "mean_reward": float(rewards.mean()),
        "std_reward": float(rewards.std()),
        "episodes": episodes,
        "evaluation_seed": seed,
    }


def main(arguments=None):
    parser = make_parser()
    args = parser.parse_args(arguments)
    if args.parallel % args.threads:
        parser.error(f"--threads {args.threads} must divide --parallel {args.parallel}")
    if args.discount > 1:
        parser.error(f"--discount {args.discount:g} must be at most 1")
    if args.model == "random" and (args.resume or args.start_from):
        option = "--resume" if args.resume else "--start-from"
        parser.error(f"--model random has nothing to resume or to train; leave out {option}")
    use_backend(parser, args.backend)
    with parser.answering():
        if args.evaluate:
            evaluate(args)
        else:
            train(args, parser)


def make_parser():
    parser = Parser(description=__doc__)
    train = parser.add_argument_group("training")
    train.add_argument(
        "--model",
        choices=MAZE_MODELS,
        default="mnm-p",
        help="MNM with local (mnm-p) or gradient writes (mnm-g), one of the paper's baselines, or "
        "random steps, which nothing is trained for",
    )
    train.add_argument("--parallel", type=positive_int, default=32, help="episodes an update")
    train.add_argument(
        "--clipnorm",
        type=positive_float,
        default=1.0,
        help="the norm that gradients are clipped to",
    )
    train.add_argument("--discount", type=positive_float, default=0.9, help="of rewards, a step")
    train.add_argument("--value", type=non_negative_float, default=0.1, help="weight of the critic")
    train.add_argument(
        "--concentration",
        type=non_negative_float,
        default=0.1,
        help="weight of the sum of squared probabilities, which keeps the policy exploring",
    )
    train.add_argument(
        "--threads", type=positive_int, default=1, help="parts of an update, for several CPU cores"
    )
    add_run_options(train)
    parser.set_defaults(learning_rate=5e-4)
    parser.add_argument(
        "--episodes",
        type=positive_int,
        help="to train on, by default {training:,}; with --evaluate, by default "
        "{evaluation:,}".format(**EPISODES),
    )
    parser.add_argument("--seed", type=non_negative_int, default=0, help="of weights and episodes")
    add_backend_option(parser, "tensorflow", "jax")
    parser.add_argument(
        "--evaluate",
        metavar="MODEL_OR_PRESET",
        help="instead of training: a .keras file, the folder of a run, a preset's name, or random; "
        "the last line printed is JSON",
    )
    return parser


def make_model(name):
    """The paper's sizes: 200 controller units, a memory of 3 × 100 × 100, three heads.

    The plastic network is its baseline, with 100 units.
    """
    import keras_mnm

    if "plastic" in name:
        homogeneous = name == "homogeneous-plastic"
        options = {"return_sequences": True, "return_state": True}
        core = keras_mnm.Plastic(100, homogeneous, name="plastic", **options)
    else:
        core = experiment.recurrent_layer(name, units=200, num_heads=3, return_state=True)
    return keras_mnm.rl.ActorCritic(core, num_actions=4, name="actor_critic")


def train(args, parser):
    name = f"maze-{args.model}"
    folder = args.output or pathlib.Path("runs") / f"{name}-seed{args.seed}"
    episodes = args.episodes or EPISODES["training"]
    check_installed(parser, "matplotlib", "viz")
    if args.model == "random":
        check_random(folder)
        check_writable(parser, folder)
        play_at_random(folder, args.episodes or EPISODES["evaluation"], args.seed)
        return

    import keras
    from maze_run import MazeRun

    from keras_mnm import rl

    settings = {
        "task": TASK.name,
        "model": args.model,
        "steps": -(-episodes // args.parallel),
        "steps_per_epoch": STEPS_PER_EPOCH,
        "parallel": args.parallel,
        "learning_rate": args.learning_rate,
        "schedule": SCHEDULE,
        "clipnorm": args.clipnorm,
        "discount": args.discount,
        "value": args.value,
        "concentration": args.concentration,
        "seed": args.seed,
        "start_from": args.start_from,
    }
    run = MazeRun(folder, settings)
    run.open(args.resume)
    keras.utils.set_random_seed(args.seed)
    model, maze = make_model(args.model), rl.Maze()
    model.build((None, maze.episode_steps, maze.observation_size))
    experiment.begin(model, folder, args, parser)
    print(
        f"Training {name} with {model.count_params():,} parameters on "
        f"{settings['steps'] * args.parallel:,} episodes, "
        f"{args.parallel} side by side; results in {folder}/",
        flush=True,
    )
    with run.running():
        if not args.resume:
            experiment.write_start(folder, args.start_from)
        model = run.train_or_tell(model, maze, args.threads, minutes=args.minutes)
        if model is None:
            return
        figures = measure(model, EPISODES["evaluation"], args.seed)
        draw_episode(model, folder, args.seed)
        run.finish(model, f"{name}, seed {args.seed}", figures)
    print(f"Model, curve, pictures, history and metrics are in {folder}/")
    print(json.dumps(figures))


def check_random(folder):
    """A ValueError where the folder has the results of a run that was trained."""
    trained = [name for name in ("settings.json", "model.keras") if (folder / name).exists()]
    if trained:
        raise ValueError(
            f"{folder} holds the run of a trained model ({trained[0]}), whose results random steps "
            "would overwrite; choose another folder with --output."
        )


def play_at_random(folder, episodes, seed):
    from trainer import origin

    from keras_mnm.files import write_json

    figures = measure(None, episodes, seed)
    draw_episode(None, folder, seed)
    settings = {"task": TASK.name, "model": "random", "seed": seed}
    write_json(folder / "metrics.json", {**figures, "settings": settings, **origin()})
    print(f"Pictures and metrics are in {folder}/")
    print(json.dumps(figures))


def draw_episode(model, folder, seed):
    """A picture of a maze, and an animated one of an episode."""
    from keras_mnm import rl
    from keras_mnm.rl.pictures import episode_animation, maze_picture

    maze = rl.Maze()
    episodes = rl.rollout(model, maze, rl.draw_chance((seed, 0, 1), 1, maze.episode_steps))
    maze_picture(maze, folder / "maze.png", episodes.goals[0])
    episode_animation(maze, episodes, folder / "episode.gif")


def evaluate(args):
    model = None if args.evaluate == "random" else experiment.open_model(args.evaluate)
    if model is not None:
        TASK.instance_of(model)
    print(f"{args.evaluate}: {TASK.title}")
    print(json.dumps(TASK.measure(model, args)))


if __name__ == "__main__":
    main()
