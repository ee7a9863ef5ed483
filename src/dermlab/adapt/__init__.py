"""How a head is fitted on frozen features: nearest neighbours, linear, MLP, fusion with the questionnaire, the floors.

In come features, the encoded questionnaire and a split; ``train`` fits, ``val`` chooses. Out goes a run folder with
predictions and a saved model. Every head is a scikit-learn classifier, so it also works on anybody's arrays.
"""
