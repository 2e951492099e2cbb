// The presets of this version: a line for each file of this folder.
[
    ("github", include_str!("github.yaml")),
    ("openai", include_str!("openai.yaml")),
    ("stripe", include_str!("stripe.yaml")),
]
