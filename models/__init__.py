"""The model zoo, imported as prunec.models: real pretrained models from packages and small builders."""
