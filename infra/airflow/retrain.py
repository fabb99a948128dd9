# The nightly retraining as a DAG of Airflow 3: one task, which calls the command and nothing else.
#
#   cp infra/airflow/retrain.py "$(airflow config get-value core dags_folder)"
#   airflow variables set framebank_retrain_config gs://BUCKET/retrain.toml
#   airflow dags unpause framebank_retrain
#
# The worker that runs it needs `framebank` on its PATH and reads access to the bucket from its own
# environment. Trying again is safe: a retraining that was killed leaves the model in use as it was.
# Promoted, kept aside and nothing new are all a success; `framebank models list` tells which.
import datetime

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

with DAG(
    dag_id="framebank_retrain",
    description="framebank retrain: train where something is new, promote what is better",
    schedule="30 4 * * *",
    start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    catchup=False,
    max_active_runs=1,
    tags=["framebank"],
) as dag:
    BashOperator(
        task_id="retrain",
        bash_command='framebank retrain --config "$RETRAIN_CONFIG"',
        env={"RETRAIN_CONFIG": "{{ var.value.framebank_retrain_config }}"},
        append_env=True,
        retries=2,
        retry_delay=datetime.timedelta(minutes=10),
        execution_timeout=datetime.timedelta(hours=12),
    )
