# Who may do what: an account each for the workers, who submits, trains, serves, and the scheduler. None has a key.
#
#   terraform apply -var submitters='["group:video@example.com"]' ...
#
# - worker: Dataflow's own role for workers; writes features and staged files, reads clips and images.
# - submitter: makes and cancels jobs, lists clips, opens the cache, stages, reads models; acts as the worker.
# - trainer: reads features and publishes models. No other writes a model: those who read strangers' clips do not
#   decide what answers questions.
# - server: reads models and features; writes nothing.
# - scheduler: launches the template, as the worker; sees no clip and no feature.
# People are named in `submitters` and `trainers` and take their places (--impersonate_service_account).

resource "google_service_account" "worker" {
  account_id   = "framebank-worker"
  display_name = "Framebank's workers"
}

resource "google_service_account" "submit" {
  account_id   = "framebank-submit"
  display_name = "Who submits Framebank's jobs"
}

resource "google_service_account" "train" {
  account_id   = "framebank-train"
  display_name = "Trains Framebank's models"
}

resource "google_service_account" "serve" {
  account_id   = "framebank-serve"
  display_name = "Answers questions about clips"
}

resource "google_service_account" "scheduler" {
  account_id   = "framebank-scheduler"
  display_name = "Launches Framebank's template"
}

resource "google_project_iam_member" "worker" {
  project = var.project
  role    = "roles/dataflow.worker"
  member  = google_service_account.worker.member
}

resource "google_project_iam_member" "developer" {
  for_each = {
    submit    = google_service_account.submit.member
    scheduler = google_service_account.scheduler.member
  }

  project = var.project
  role    = "roles/dataflow.developer"
  member  = each.value
}

locals {
  # Bucket by bucket; objectUser reads, writes and deletes objects and changes no bucket.
  bucket_roles = {
    "worker writes features" = {
      bucket = google_storage_bucket.features.name
      role   = "roles/storage.objectUser"
      member = google_service_account.worker.member
    }
    "worker stages" = {
      bucket = google_storage_bucket.staging.name
      role   = "roles/storage.objectUser"
      member = google_service_account.worker.member
    }
    "worker reads clips" = {
      bucket = data.google_storage_bucket.clips.name
      role   = "roles/storage.objectViewer"
      member = google_service_account.worker.member
    }
    "worker reads models" = {
      bucket = google_storage_bucket.models.name
      role   = "roles/storage.objectViewer"
      member = google_service_account.worker.member
    }
    "submitter opens the cache" = {
      bucket = google_storage_bucket.features.name
      role   = "roles/storage.objectUser"
      member = google_service_account.submit.member
    }
    "submitter stages" = {
      bucket = google_storage_bucket.staging.name
      role   = "roles/storage.objectUser"
      member = google_service_account.submit.member
    }
    "submitter lists clips" = {
      bucket = data.google_storage_bucket.clips.name
      role   = "roles/storage.objectViewer"
      member = google_service_account.submit.member
    }
    "submitter reads models" = {
      bucket = google_storage_bucket.models.name
      role   = "roles/storage.objectViewer"
      member = google_service_account.submit.member
    }
    "trainer reads features" = {
      bucket = google_storage_bucket.features.name
      role   = "roles/storage.objectViewer"
      member = google_service_account.train.member
    }
    "trainer publishes models" = {
      bucket = google_storage_bucket.models.name
      role   = "roles/storage.objectUser"
      member = google_service_account.train.member
    }
    "server reads features" = {
      bucket = google_storage_bucket.features.name
      role   = "roles/storage.objectViewer"
      member = google_service_account.serve.member
    }
    "server reads models" = {
      bucket = google_storage_bucket.models.name
      role   = "roles/storage.objectViewer"
      member = google_service_account.serve.member
    }
    "scheduler reads the template" = {
      bucket = google_storage_bucket.staging.name
      role   = "roles/storage.objectViewer"
      member = google_service_account.scheduler.member
    }
  }
}

resource "google_storage_bucket_iam_member" "access" {
  for_each = local.bucket_roles

  bucket = each.value.bucket
  role   = each.value.role
  member = each.value.member
}

resource "google_artifact_registry_repository_iam_member" "worker" {
  location   = google_artifact_registry_repository.images.location
  repository = google_artifact_registry_repository.images.name
  role       = "roles/artifactregistry.reader"
  member     = google_service_account.worker.member
}

# To start workers that run as the worker's account, one must be allowed to act as it.
resource "google_service_account_iam_member" "act_as_worker" {
  for_each = {
    submit    = google_service_account.submit.member
    scheduler = google_service_account.scheduler.member
    # The template's launcher is a machine of the worker's that starts machines of the worker's.
    worker = google_service_account.worker.member
  }

  service_account_id = google_service_account.worker.name
  role               = "roles/iam.serviceAccountUser"
  member             = each.value
}

resource "google_project_iam_member" "launcher" {
  project = var.project
  role    = "roles/dataflow.developer"
  member  = google_service_account.worker.member
}

resource "google_service_account_iam_member" "submitters" {
  for_each = var.submitters

  service_account_id = google_service_account.submit.name
  role               = "roles/iam.serviceAccountTokenCreator"
  member             = each.key
}

resource "google_service_account_iam_member" "trainers" {
  for_each = var.trainers

  service_account_id = google_service_account.train.name
  role               = "roles/iam.serviceAccountTokenCreator"
  member             = each.key
}

# On GKE a service account of the cluster stands for one of these: infra/kubernetes.
resource "google_service_account_iam_member" "workload_identity" {
  for_each = var.kubernetes_namespace == null ? {} : {
    flink            = google_service_account.worker.name
    framebank-submit = google_service_account.submit.name
    framebank-train  = google_service_account.train.name
    framebank-serve  = google_service_account.serve.name
  }

  service_account_id = each.value
  role               = "roles/iam.workloadIdentityUser"
  member             = "serviceAccount:${var.project}.svc.id.goog[${var.kubernetes_namespace}/${each.key}]"
}
