"""CGCNN and SchNet: shared physics, and each against a plain loop over its published equations."""

import numpy as np
import pytest
import torch
from torch.nn.functional import softplus

from graph_models import GraphModelTests, crystal
from replimat.errors import DataError
from replimat.models.cgcnn import CGCNN
from replimat.models.schnet import SchNet
from replimat.representations.crystal_graph import CrystalGraph
from replimat.representations.cutoff_graph import CutoffGraph


def pymatgen_neighbours(z, x, cell, radius):
    """Independent neighbour list: for each atom its (neighbour, distance), nearest first."""
    from pymatgen.core import Structure

    structure = Structure(cell, z, x, coords_are_cartesian=True)
    return [
        sorted(((n.index, n.nn_distance) for n in site), key=lambda pair: pair[1])
        for site in structure.get_all_neighbors(radius)
    ]


class TestCGCNN(GraphModelTests):
    representation = CrystalGraph(cutoff=8.0, neighbours=12)

    def model(self):
        return CGCNN(torch.rand(101, 92), n_conv=2)

    def test_equations_by_a_plain_loop(self, trained_like):
        """Eq. 5 atom by atom, with pymatgen's neighbours: catches swapped senders and receivers on an asymmetric
        crystal.
        """
        z, x, cell = crystal(11)
        model = trained_like
        near = pymatgen_neighbours(z, x, cell, 8.0)
        v = model.embedding(model.element_features[torch.from_numpy(z)])
        centres = torch.arange(41, dtype=torch.float64) * 0.2
        for convolution in model.convs:
            new = []
            for i in range(len(z)):
                message = 0
                for j, d in near[i][:12]:
                    bond = torch.exp(-((d - centres) ** 2) / 0.2**2)
                    mixed = convolution.bn1(convolution.fc_full(torch.cat([v[i], v[j], bond]))[None])[0]
                    gate, core = mixed.chunk(2)
                    message = message + torch.sigmoid(gate) * softplus(core)
                new.append(softplus(v[i] + convolution.bn2(message[None])[0]))
            v = torch.stack(new)
        expected = model.fc_out(softplus(model.conv_to_fc(softplus(v.mean(0)))))
        assert self.predict(model, (z, x, cell))[0] == pytest.approx(expected.item(), abs=1e-5)

    def test_unknown_element_is_refused(self, trained_like):
        z, x, cell = crystal(12)
        with pytest.raises(DataError, match="Z = 105"):
            self.predict(trained_like, (np.full_like(z, 105), x, cell))

    def test_classes_are_log_probabilities(self):
        model = CGCNN(torch.rand(101, 92), n_conv=1, classes=2).double().eval()
        np.testing.assert_allclose(np.exp(self.predict(model, crystal(13))).sum(axis=1), 1.0)


class TestSchNet(GraphModelTests):
    representation = CutoffGraph(cutoff=5.0)
    extensive = differentiable = smooth = True

    def model(self):
        return SchNet(features=16, filters=16, interactions=2, gaussians=20)

    def test_equations_by_a_plain_loop(self, trained_like):
        """The continuous-filter convolution atom by atom, images summed one by one, with pymatgen's neighbours."""
        z, x, cell = crystal(14)
        model = trained_like
        near = pymatgen_neighbours(z, x, cell, 5.0)
        v = model.embedding(torch.from_numpy(z))
        centres = torch.linspace(0, 5.0, 20, dtype=torch.float64)
        for block in model.interactions:
            new = []
            for i in range(len(z)):
                message = 0
                for j, d in near[i]:
                    gaussians = torch.exp(-0.5 / centres[1] ** 2 * (d - centres) ** 2)
                    w = block.filter(gaussians) * 0.5 * (np.cos(np.pi * d / 5.0) + 1)
                    message = message + block.before(v[j]) * w
                new.append(v[i] + block.after(message))
            v = torch.stack(new)
        assert self.predict(model, (z, x, cell))[0] == pytest.approx(model.readout(v).sum().item(), abs=1e-5)

    def test_mean_pooling_is_intensive(self):
        torch.manual_seed(0)
        total, mean = SchNet(interactions=1), SchNet(interactions=1, pooling="mean")
        torch.nn.init.normal_(total.readout[-1].weight)
        mean.load_state_dict(total.state_dict())
        one = crystal(15, 4)
        assert self.predict(total.double(), one) == pytest.approx(4 * self.predict(mean.double(), one))

    def test_pooling_is_checked(self):
        with pytest.raises(ValueError, match="pooling"):
            SchNet(pooling="max")
