"""BibTeX of the papers behind the catalogue (`stopgrad cite NAME`)."""

BIBTEX: dict[str, str] = {
    "stopgrad": """@software{stopgrad,
  title  = {stopgrad: pretraining without negative pairs, its collapse and its theory},
  author = {{The stopgrad developers}},
  year   = {2026},
}""",
    "chen2021simsiam": """@inproceedings{chen2021simsiam,
  title     = {Exploring Simple {Siamese} Representation Learning},
  author    = {Chen, Xinlei and He, Kaiming},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  pages     = {15750--15758},
  year      = {2021},
}""",
    "grill2020byol": """@inproceedings{grill2020byol,
  title     = {Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning},
  author    = {Grill, Jean-Bastien and Strub, Florian and Altch{\\'e}, Florent and Tallec, Corentin and
               Richemond, Pierre H. and Buchatskaya, Elena and Doersch, Carl and
               {\\'A}vila Pires, Bernardo and Guo, Zhaohan Daniel and Gheshlaghi Azar, Mohammad and
               Piot, Bilal and Kavukcuoglu, Koray and Munos, R{\\'e}mi and Valko, Michal},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {33},
  year      = {2020},
}""",
    "tian2021directpred": """@inproceedings{tian2021directpred,
  title     = {Understanding Self-Supervised Learning Dynamics without Contrastive Pairs},
  author    = {Tian, Yuandong and Chen, Xinlei and Ganguli, Surya},
  booktitle = {Proceedings of the 38th International Conference on Machine Learning},
  series    = {Proceedings of Machine Learning Research},
  volume    = {139},
  pages     = {10268--10278},
  year      = {2021},
}""",
}
