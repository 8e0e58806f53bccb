"""The attack lab: what a provider that is curious, or hostile, learns of a site, with and without a defence.

Every attack is run three times: where nothing is defended (there it must succeed, or the run proves nothing), under the
default policy, and under the private one, whose figures are held against the bars of the configuration.
"""
