"""The Ray jobs and the `pneumonia` command: one module per command, with its options and one call.

    console                    options, progress, one-line errors, the JSON result
    ray_runtime                Ray up and down, the resources of its cluster
    scoring                    a scoring run on Ray Data
    training                   a training on Ray Train
    inspection                 a survey of images on Ray Data
    evaluation                 a labelled set through the scoring run
    exporting                  a bundle with one more engine
    demonstration              the whole loop on synthetic X-rays

May import: pneumonia_core.
"""
