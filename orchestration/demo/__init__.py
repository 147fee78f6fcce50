"""`make demo-drift`: traffic turns, the report names it, corrections come, a retraining wins, and a rollback undoes it.

Everything is real (service, log, reports, jobs, trainings) but for the traffic, which is synthesised, and the clock: a
day of the story lasts as long as its requests take. It runs in a folder of its own and leaves the checkout's champion,
data and history alone; what stays is reports/demo-drift/.
"""
