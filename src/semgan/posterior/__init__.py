"""Samples of the posterior over latent codes, which the paper names as future work (supplement sec. 1.2).

    p(w+ | x*)  ~  p(w+) exp(-loss(G_x(w+), x*) / temperature),      masks: G_y(w+)

prior: p(w+) in whitened W+; sampler: Markov chains in batches; diagnostics: are they to be believed;
latent: the posterior of a trained model's codes.
"""
