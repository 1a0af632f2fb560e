"""The pocket model's training: a text-to-image model small enough to ship, draw and learn on a laptop's processor.

Its world is little scenes with a subject, a colour, a setting and attributes that a prompt may leave open. Read it in
this order:

    dmpo_app/pocket/scenes.py       what a scene is made of, and how what is left open is drawn by lot
    dmpo_app/pocket/language.py     from a scene to a prompt and from a prompt to what it names
    prompts.py              the shipped prompt files
    canvas.py, light.py, landscapes.py, brush.py, subjects.py (living.py, things.py), render.py
                            a scene as pixels
    renders.py              many of them, on disk
    networks.py             the networks: Stable Diffusion's classes, made small
    tokenizer.py            the words they know
    autoencoder.py, latents.py, denoiser.py, decoder.py
                            the stages of training
    muon.py, parallel.py, progress.py, checkpoint.py
                            what the stages share
    train.py, export.py, __main__.py
                            the stages in order, and the folder that ships
    classifier_training.py  trains dmpo_app/pocket/classifiers.py, a judge of images, on renders only

`python -m examples.pocket_model train`, from the top of the checkout.
"""
