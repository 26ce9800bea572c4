"""What a month on AWS costs: a pure calculation over a load, the settings and a table of prices."""
