"""Online anomaly detectors: they score a value, then learn it, in the order of arrival.

One detector holds the state of many devices, each by itself:

    detector = NearestValue(["pm25", "no2", "o3"])
    scores = detector.process_many(stations, X, times)  # (n,); an alert is a score ≥ detector.threshold
    state = detector.snapshot()  # bytes; `restore` goes on as if nothing had happened

or is an estimator of river for one: `detector.score_one({"pm25": 12.0})`, `detector.learn_one(…)`.

nearest.NearestValue        what a device never did before: the default
trees.HalfSpaceTrees        river's, bit for bit, compiled
river.StandardDeviation     distance from the mean; river.with_river takes any model of river
laws                        what every detector must obey; benchmark judges them on labelled series
"""
