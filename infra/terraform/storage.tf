# Buckets for features, models and staged files, and the registry for images.
#
#   terraform apply -target google_storage_bucket.features      # only the cache
#
# The features' bucket keeps no old versions: a shard is written once, and a cache can be made again. The
# models' bucket does. What an upload that was cut off leaves behind costs money until it is removed: all
# three remove it after a day.

locals {
  prefix = coalesce(var.prefix, var.project)
}

resource "google_storage_bucket" "features" {
  name                        = "${local.prefix}-features"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  soft_delete_policy {
    retention_duration_seconds = 604800 # a week to undo a mistake
  }

  lifecycle_rule {
    action {
      type = "AbortIncompleteMultipartUpload"
    }
    condition {
      age = 1
    }
  }

  depends_on = [google_project_service.needed]
}

resource "google_storage_bucket" "models" {
  name                        = "${local.prefix}-models"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  versioning {
    enabled = true
  }

  lifecycle_rule {
    action {
      type = "AbortIncompleteMultipartUpload"
    }
    condition {
      age = 1
    }
  }

  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      num_newer_versions = 10
      with_state         = "ARCHIVED"
    }
  }

  depends_on = [google_project_service.needed]
}

resource "google_storage_bucket" "staging" {
  name                        = "${local.prefix}-staging"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  # Dataflow's temporary files, which nobody needs back.
  soft_delete_policy {
    retention_duration_seconds = 0
  }

  lifecycle_rule {
    action {
      type = "AbortIncompleteMultipartUpload"
    }
    condition {
      age = 1
    }
  }

  # Templates' spec files live here too, under templates/, and stay.
  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      age            = 14
      matches_prefix = ["staging/", "temp/"]
    }
  }

  depends_on = [google_project_service.needed]
}

data "google_storage_bucket" "clips" {
  name = var.clips_bucket
}

resource "google_artifact_registry_repository" "images" {
  repository_id = "framebank"
  location      = var.region
  format        = "DOCKER"
  description   = "Images of infra/docker."

  docker_config {
    immutable_tags = true
  }

  cleanup_policies {
    id     = "untagged"
    action = "DELETE"
    condition {
      tag_state  = "UNTAGGED"
      older_than = "2592000s"
    }
  }

  depends_on = [google_project_service.needed]
}
