# The extraction of every night, as a launch of the flex template.
#
#   framebank template build --command extract --image REGISTRY/launcher:0.1.0 --out gs://STAGING/templates
#   terraform apply -var template_uri=gs://STAGING/templates/extract/template.json -var worker_image=IMAGE
#   gcloud scheduler jobs run framebank-extract --location REGION
#
# Dataflow refuses a second job of the same name while the first one runs, so runs do not overlap: one run at
# a time writes to a cache, and in a bucket no lock sees to that.

resource "google_cloud_scheduler_job" "extract" {
  count = var.template_uri == null ? 0 : 1

  name             = "framebank-extract"
  description      = "Extracts features of new and changed clips."
  region           = var.region
  schedule         = var.schedule
  time_zone        = "Etc/UTC"
  attempt_deadline = "180s"

  retry_config {
    retry_count          = 3
    min_backoff_duration = "60s"
  }

  http_target {
    http_method = "POST"
    uri = join("/", [
      "https://dataflow.googleapis.com/v1b3/projects",
      var.project,
      "locations/${var.region}/flexTemplates:launch",
    ])
    headers = { "Content-Type" = "application/json" }

    body = base64encode(jsonencode({
      launchParameter = {
        jobName              = "framebank-extract"
        containerSpecGcsPath = var.template_uri
        parameters = {
          inputs = "gs://${data.google_storage_bucket.clips.name}/"
          cache  = "${google_storage_bucket.features.url}/cache"
          sample = var.sample
        }
        environment = {
          serviceAccountEmail = google_service_account.worker.email
          tempLocation        = "${google_storage_bucket.staging.url}/temp"
          stagingLocation     = "${google_storage_bucket.staging.url}/staging"
          sdkContainerImage   = var.worker_image
        }
      }
    }))

    oauth_token {
      service_account_email = google_service_account.scheduler.email
      scope                 = "https://www.googleapis.com/auth/cloud-platform"
    }
  }

  depends_on = [google_project_service.needed]
}
