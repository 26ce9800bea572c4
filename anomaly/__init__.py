"""Online anomaly detectors: each value is scored and then learnt, in order of arrival.

One detector holds the independent states of many devices:

    detector = NearestValue(["pm25", "no2", "o3"])
    scores = detector.process_many(stations, X, times)  # (n,); an alert is a score ≥ detector.threshold
    state = detector.snapshot()  # bytes; after `restore`, scores continue as without interruption

A detector is also a river estimator for one device: `detector.score_one({"pm25": 12.0})`, `detector.learn_one(…)`.

nearest.NearestValue        the default: distance to the nearest value ever seen of the device
trees.HalfSpaceTrees        a compiled equivalent of river's HalfSpaceTrees, identical bit for bit
river.StandardDeviation     distance from the mean; river.with_river wraps any river model
laws                        properties that every detector must satisfy
benchmark                   evaluation on labelled series
"""
